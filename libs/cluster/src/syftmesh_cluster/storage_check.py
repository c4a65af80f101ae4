"""Proves that an object store keeps what the product relies on; a store that does not must not be used.

``python -m syftmesh_cluster.storage_check`` with the settings of a service's store (``SYFTMESH_S3_ENDPOINT`` and so on)
makes the bucket when it is missing, prints one line per check, and ends with 1 when one failed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from syftmesh_core.clock import Clock, SystemClock, uuid7
from syftmesh_core.errors import IntegrityFailure, MeshError, PermissionDenied, Unavailable
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.settings import load_settings

from syftmesh_cluster.program import log_quietly, run_program, say
from syftmesh_cluster.settings import StorageCheckSettings
from syftmesh_cluster.store_promise import Promise, PromiseBroken, StorePromises
from syftmesh_cluster.store_request import StoreRequests

PASSED_KEY: Final = "check/passed-1"
"""An object in a store that has passed; its number rises with what is checked."""

_PAUSE_S: Final = 1.0
_REFUSALS: Final = (b"InvalidAccessKeyId", b"SignatureDoesNotMatch", b"AccessDenied")


async def check_store(config: S3Config, clock: Clock, wait_s: float, *, once: bool = False) -> None:
    """Check the store and print one line per check; with `once` not again when it passed before.

    Raises:
        IntegrityFailure: A check failed (STORE_NOT_CONFORMANT, metadata ``checks``).
        PermissionDenied: The store does not accept the credentials (STORE_REFUSED).
        Unavailable: It did not answer within `wait_s` seconds (OBJECT_STORE_AWAY), or its certificate is not
            trusted (OBJECT_STORE_UNTRUSTED).
    """
    direct = replace(config, url_base="")
    store, requests = S3ObjectStore(direct, clock), StoreRequests.opened(direct, clock)
    try:
        await _bucket(store, requests, clock, wait_s)
        say(f"ok    bucket: {config.bucket}")
        if once and await store.head(PASSED_KEY) is not None:
            say("ok    passed before")
            return
        promises = StorePromises(store, requests, clock, f"check/{uuid7(clock)}/")
        failed = [promise.name for promise in promises.all() if not await _kept(promise)]
        await promises.clean()
        say("note  free-space: unknown, S3 has no request for it")
        if not failed:
            await store.put(PASSED_KEY, b"", create=False)
    finally:
        await requests.close()
    if failed:
        raise _not_conformant(failed)
    say("The object store conforms.")


async def _bucket(store: S3ObjectStore, requests: StoreRequests, clock: Clock, wait_s: float) -> None:
    """Make the bucket, waiting for a store that is starting."""
    deadline_s, told = clock.monotonic_s() + wait_s, False
    while True:
        try:
            return await store.ensure_bucket()
        except Unavailable as error:
            await _refused(requests)
            if clock.monotonic_s() + _PAUSE_S >= deadline_s:
                raise _away(error) from error
            if not told:
                say(f"wait  the store does not answer yet ({error.reason})")
                told = True
        await asyncio.sleep(_PAUSE_S)


async def _refused(requests: StoreRequests) -> None:
    """Raise PermissionDenied when the store answers and says that the credentials are wrong: waiting helps nobody."""
    try:
        answer = await requests.ask("GET", "check/credentials")
    except Unavailable:
        return
    if answer.status == 403 and any(code in answer.body for code in _REFUSALS):
        raise PermissionDenied(
            "The object store does not accept the access key and secret key, or does not let them make the bucket.",
            reason="STORE_REFUSED",
            hint="Compare the Secret of the store's keys with what the store was started with.",
        )


async def _kept(promise: Promise) -> bool:
    try:
        await promise.check()
    except PromiseBroken as broken:
        say(f"fail  {promise.name}: {broken} ({promise.why})")
    except MeshError as error:
        say(f"fail  {promise.name}: {error.reason} ({promise.why})")
    else:
        say(f"ok    {promise.name}")
        return True
    return False


def _not_conformant(failed: Sequence[str]) -> IntegrityFailure:
    names = ", ".join(failed)
    return IntegrityFailure(
        f"The object store does not keep what SyftMesh relies on: {names}. Nothing may be kept in it.",
        reason="STORE_NOT_CONFORMANT",
        metadata={"checks": names},
        hint="Correct the clock of its host."
        if failed == ["clock"]
        else "Use another store, or a newer version.",
    )


def _away(error: Unavailable) -> Unavailable:
    return Unavailable(
        error.message,
        reason=error.reason,
        hint="Look at the store's pods and log, and at S3_ENDPOINT and S3_CA_FILE.",
    )


def main() -> int:
    """Run the program and return its exit code."""

    async def run() -> None:
        settings = load_settings(StorageCheckSettings)
        await check_store(S3Config.of(settings), SystemClock(), settings.wait_s, once=settings.once)

    return run_program(run)


if __name__ == "__main__":
    log_quietly()
    sys.exit(main())
