"""The retrain governor: whatever asks for a training becomes one decision per model, kept with its reason."""
