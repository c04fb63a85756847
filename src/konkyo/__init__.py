"""Konkyo serves image classifiers that show why they decided."""

__version__ = "0.1.0"
