"""Requests under way, by who asks: a SuperNode's question is held for seconds, and must not outlive its right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from syftmesh_core.errors import Unauthenticated
from syftmesh_kit.caller import Caller
from syftmesh_kit.token import Revocation


class OpenRequests:
    """The requests that wait for their answer."""

    def __init__(self) -> None:
        self._callers: dict[asyncio.Task[Any], Caller] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    @contextmanager
    def of(self, caller: Caller) -> Iterator[None]:
        """Let the block be ended by a revocation that covers `caller`.

        Raises:
            Unauthenticated: It was (TOKEN_REVOKED).
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request runs in a task")
        self._callers[task] = caller
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise Unauthenticated("The access token has been revoked.", reason="TOKEN_REVOKED") from None
        finally:
            self._callers.pop(task, None)
            self._ended.discard(task)

    def end(self, revocation: Revocation) -> None:
        """End the requests that were made with what `revocation` covers."""
        for task, caller in self._callers.items():
            # An open request's token is older than its revocation: the time of issue needs no comparing.
            if task not in self._ended and revocation.covers(caller, 0):
                self._ended.add(task)
                task.cancel()
