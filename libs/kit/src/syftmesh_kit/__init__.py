"""What every SyftMesh service shares: gRPC servers and channels, NATS, object store, journal, telemetry, settings."""
