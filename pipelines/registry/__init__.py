"""Registered versions: MLflow, the artefact store and the signed model card."""
