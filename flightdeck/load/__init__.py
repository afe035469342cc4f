"""Users at a constant rate, on this machine or as a Job in the cluster, and a verdict on what they met."""
