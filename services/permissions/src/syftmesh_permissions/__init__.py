"""Evaluation of syft.pub.yaml rules: check and explain."""
