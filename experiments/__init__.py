"""The experiments behind docs/results.md: what is trained, how it is measured, the tables."""
