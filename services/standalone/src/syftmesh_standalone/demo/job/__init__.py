"""Code that the demo's scientist submits; it runs in the sites' sandboxes and never in this process."""
