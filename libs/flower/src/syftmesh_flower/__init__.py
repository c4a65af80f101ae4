"""Flower apps over datasites: bundles, sealing, the egress gate, the site executor and the aggregator."""
