"""Isolated execution of other people's code: sandbox, probe."""
