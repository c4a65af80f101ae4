"""How the domain's ports are met: NATS, the object store, the key directory's log."""
