"""Programs of the charts' Jobs: secrets and certificates, checks of store and bus, probe of isolation."""
