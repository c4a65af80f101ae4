"""Adapters of the agent, one technology per module."""
