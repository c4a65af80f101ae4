"""Runs the key directory as a process of its own."""

from __future__ import annotations

import asyncio
import sys

from syftmesh_kit.hub import HubParts, serve_hub
from syftmesh_kit.journal import JournalMetrics
from syftmesh_kit.run import run_service
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.settings import load_settings

from syftmesh_crypto.app import CryptoModule, build
from syftmesh_crypto.settings import CryptoSettings


def main() -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    sys.exit(run_service(serve))


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        InvalidInput: A setting is wrong (SETTING_INVALID).
        Unavailable: The bus cannot be reached, or the address is in use.
    """
    settings = load_settings(CryptoSettings)

    async def module(parts: HubParts) -> CryptoModule:
        store = S3ObjectStore(S3Config.of(settings), clock=parts.clock)
        metrics = JournalMetrics(parts.registry)
        return await build(
            settings, bus=parts.bus, object_store=store, clock=parts.clock, journal_metrics=metrics
        )

    await serve_hub("crypto", settings, stop, module)


if __name__ == "__main__":
    main()
