"""The loop on one machine: processes, replay, virtual users, report."""
