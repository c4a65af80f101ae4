"""Login, tokens, devices, join tokens and sites."""
