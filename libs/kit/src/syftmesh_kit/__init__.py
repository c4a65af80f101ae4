"""What every SyftMesh service shares: servers, channels, bus, object store, journal, telemetry, settings."""
