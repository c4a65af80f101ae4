"""Adapters of the agent."""
