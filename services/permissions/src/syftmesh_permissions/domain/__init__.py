"""What the permission service decides beyond the engine: who may ask what, and how much an answer shows."""
