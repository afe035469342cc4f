"""The rollout on Kubernetes: adapters behind the tick's ports, and the process that ticks each ModelRollout."""
