"""Adapters of the router, one technology per module."""
