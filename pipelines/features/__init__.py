"""Feature tables, exports, the Feast registry and the training frame."""
