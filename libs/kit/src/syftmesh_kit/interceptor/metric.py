"""Prometheus metrics of RPCs, with closed label sets: methods that are registered, gRPC codes."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RpcMetrics:
    """Counts and times RPCs in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter(
            "syftmesh_rpc_handled",
            "RPCs answered, by method and gRPC code.",
            ["method", "code"],
            registry=registry,
        )
        self._duration = Histogram(
            "syftmesh_rpc_duration_seconds",
            "Seconds from the first byte of an RPC to its status.",
            ["method"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        # labels() takes a lock and builds a key at each call: the children are kept instead.
        self._counters: dict[tuple[str, str], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def handled(self, method: str, code: str, duration_s: float) -> None:
        """Record one RPC."""
        counter = self._counters.get((method, code))
        if counter is None:
            counter = self._counters[method, code] = self._handled.labels(method, code)
        counter.inc()
        timer = self._timers.get(method)
        if timer is None:
            timer = self._timers[method] = self._duration.labels(method)
        timer.observe(duration_s)
