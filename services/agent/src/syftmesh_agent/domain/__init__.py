"""Domain of the agent."""
