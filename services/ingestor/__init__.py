"""Ingestor: events from a stream into features, each event once. Knows no use case: the fold makes the features."""
