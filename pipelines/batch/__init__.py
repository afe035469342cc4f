"""Batch prediction: a day's schedule scored by one version in one pass, looked up by entity."""
