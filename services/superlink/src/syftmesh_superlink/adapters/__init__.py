"""Flower's SuperLink, key-value bucket, files and HTTP."""
