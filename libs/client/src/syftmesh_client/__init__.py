"""Client side of the hub: stubs, key store, seal and open, transfer."""
