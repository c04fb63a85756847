"""Ratios measured side by side in one run: ``make bench``. Timing lives here and not in the tests."""
