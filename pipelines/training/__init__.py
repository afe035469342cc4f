"""Search, fit and export of a candidate."""
