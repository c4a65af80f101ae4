"""The embedded mesh: the whole hub and its sites in one terminal."""
