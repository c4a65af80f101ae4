"""Flower SuperLink under supervision and federation runs."""
