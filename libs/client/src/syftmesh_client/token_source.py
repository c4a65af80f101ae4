"""Access tokens that are always fresh: renewed before they end, once at a time, and kept on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import Unauthenticated

from syftmesh_client.token_file import StoredTokens, TokenFile

EARLY_MS: Final = 60_000
"""A token is renewed this long before its end, in milliseconds, so that none ends on its way."""

Refresh = Callable[[StoredTokens], Awaitable[StoredTokens]]
"""Exchanges the refresh token at the hub."""

Relogin = Callable[[], Awaitable[StoredTokens]]
"""Logs the device in anew, where that needs no person (the embedded mesh)."""


class TokenSource:
    """The tokens of one device.

    Args:
        file: Where they are kept; other processes of the same profile share it.
        clock: Wall time.
        relogin: Logs in anew when the refresh token is of no use any more; None: a person must.
    """

    def __init__(self, file: TokenFile, clock: Clock, *, relogin: Relogin | None = None) -> None:
        self._file = file
        self._clock = clock
        self._relogin = relogin
        self._tokens: StoredTokens | None = None
        self._refused = ""
        self._lock = asyncio.Lock()

    @property
    def tokens(self) -> StoredTokens:
        """The tokens as last read or renewed; call `open` first.

        Raises:
            Unauthenticated: Nobody is logged in (NOT_LOGGED_IN).
        """
        if self._tokens is None:
            raise _not_logged_in()
        return self._tokens

    async def open(self) -> StoredTokens:
        """Read the tokens, or log in anew where that needs no person, and return them.

        Raises:
            Unauthenticated: Nobody is logged in (NOT_LOGGED_IN).
            MeshError: What the login or the file says.
        """
        async with self._lock, self._file.locked():
            self._tokens = await self._file.read()
            if self._tokens is None:
                await self._log_in_anew(_not_logged_in())
        return self.tokens

    async def store(self, tokens: StoredTokens) -> None:
        """Keep the tokens of a login."""
        async with self._lock, self._file.locked():
            await self._keep(tokens)

    async def clear(self) -> None:
        """Forget the tokens, after a logout."""
        async with self._lock, self._file.locked():
            self._tokens = None
            await self._file.remove()

    def refuse(self, access_token: str) -> None:
        """Note that the hub refused this access token: the next one is another."""
        self._refused = access_token

    async def access_token(self, refresh: Refresh) -> str:
        """Return an access token that holds, renewing it when it is about to end or was refused.

        Raises:
            Unauthenticated: REFRESH_INVALID, REFRESH_REUSED, NOT_LOGGED_IN: a person must log in.
            Unavailable: The hub does not answer.
        """
        if self._is_fresh(self._tokens):
            return self.tokens.access_token
        async with self._lock:
            if self._is_fresh(self._tokens):
                return self.tokens.access_token
            # A refresh token works once: processes that share the file take turns, and who comes second
            # finds the pair of the first.
            async with self._file.locked():
                self._tokens = await self._file.read()
                if not self._is_fresh(self._tokens):
                    await self._renew(refresh)
            return self.tokens.access_token

    async def narrow_token(self, refresh: Refresh) -> str:
        """Return the access token that `refresh` asks for, for somebody who should have no more than it.

        The device's own access token stays in use; only its refresh token has moved on.

        Raises:
            Unauthenticated: REFRESH_INVALID, REFRESH_REUSED, NOT_LOGGED_IN: a person must log in.
            Unavailable: The hub does not answer.
        """
        async with self._lock, self._file.locked():
            self._tokens = await self._file.read()
            try:
                fresh = await refresh(self.tokens)
            except Unauthenticated as error:
                await self._log_in_anew(error)
                fresh = await refresh(self.tokens)
            own = self.tokens
            await self._keep(
                replace(fresh, access_token=own.access_token, access_expires_ms=own.access_expires_ms)
            )
            return fresh.access_token

    async def _renew(self, refresh: Refresh) -> None:
        try:
            await self._keep(await refresh(self.tokens))
        except Unauthenticated as error:
            await self._log_in_anew(error)

    async def _log_in_anew(self, cause: Unauthenticated) -> None:
        if self._relogin is None:
            raise cause
        await self._keep(await self._relogin())

    async def _keep(self, tokens: StoredTokens) -> None:
        # On disk before in use: a token that is lost after its predecessor died would end the login.
        await self._file.write(tokens)
        self._tokens = tokens

    def _is_fresh(self, tokens: StoredTokens | None) -> bool:
        if tokens is None or tokens.access_token == self._refused:
            return False
        return tokens.access_expires_ms - EARLY_MS > self._clock.now_ms()


def _not_logged_in() -> Unauthenticated:
    return Unauthenticated(
        "Nobody is logged in with this profile.", reason="NOT_LOGGED_IN", hint="syftmesh login"
    )
