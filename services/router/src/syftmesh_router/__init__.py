"""Delivery of syft:// calls to the site that serves them."""
