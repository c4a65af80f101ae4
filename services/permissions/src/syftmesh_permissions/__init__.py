"""Evaluation of syft.pub.yaml rules: check, explain, list, watch."""
