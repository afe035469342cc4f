"""Drives the stack on Kubernetes: images, cluster, deploys, pipelines, the first champion."""
