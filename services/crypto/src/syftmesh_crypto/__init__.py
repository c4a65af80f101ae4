"""Key directory: device lists; never a private key."""
