"""The HTTP edge of the hub, and the one gRPC address in embedded mode."""
