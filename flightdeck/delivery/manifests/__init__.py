"""The gate of manifests: they render, fit their schemas, keep the rules, and every rollout plan can decide in time."""
