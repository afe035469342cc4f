"""Rollouts in the lab: the files of each, the controller, and what it moves: replicas and the gateway."""
