"""Calls that may end the very token that they were made with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from syftmesh_kit.caller import optional_caller

_OWN_END_S: Final = 0.25
"""Longest wait for one's own revocation to come back from the bus, in seconds; it takes milliseconds."""

Result = TypeVar("Result")


async def past_own_end(work: Coroutine[Any, Any, Result], *, ends_caller: bool) -> Result:
    """Return the result of `work`, which may revoke the very token that the call was made with.

    The server's interceptor ends open calls of revoked tokens: without this, whoever logs out would be told
    that the token was revoked. The end of this call is waited for, so that it does not hit the answer; of a person
    who ends themselves there is one for the person and one for the device.
    """
    task, inner = asyncio.current_task(), asyncio.ensure_future(work)
    while True:
        try:
            await asyncio.wait({inner})  # begun work is finished, also when the caller is gone
            if optional_caller() is not None and (ends_caller or inner.exception() is not None):
                await asyncio.sleep(_OWN_END_S)
        except asyncio.CancelledError:
            if inner.cancelled():  # the process ends
                raise
            if task is not None:
                task.uncancel()
            continue
        return inner.result()
