"""Flightdeck: CI/CD for machine learning, with rollouts that understand models."""
