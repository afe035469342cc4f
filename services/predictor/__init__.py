"""Answers requests with one model version, features from the online store."""
