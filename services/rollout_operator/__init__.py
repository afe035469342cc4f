"""Rolls a candidate out: plan.py decides the next step, judge.py what the evidence says. Both are pure.

Nothing here knows where it runs: the lab drives it over processes and Envoy, the operator over Kubernetes.
"""
