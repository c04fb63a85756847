"""Faults and loads, on real server processes: ``make chaos``. What pytest can hold exactly is held there."""
