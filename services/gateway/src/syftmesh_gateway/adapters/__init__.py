"""Adapters of the gateway: HTTP server, object store proxy, gRPC forwarder, probes."""
