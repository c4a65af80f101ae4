"""What the routes need of Flower's SuperLink, and how an answer of theirs looks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

PROTOBUF: Final = "application/protobuf"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: a whole body, or one that streams."""

    status: int
    content_type: str
    body: bytes
    stream: AsyncIterator[bytes] | None = None

    @classmethod
    def of(cls, message: Any) -> Answer:
        """Return a message of Flower's as an answer."""
        return cls(200, PROTOBUF, message.SerializeToString())


class _Head(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> bytes: ...


class Upstream(Protocol):
    """Flower's SuperLink; methods raise Unavailable (SUPERLINK_AWAY)."""

    async def pass_on(
        self, path: str, headers: Mapping[str, str], body: bytes, *, account: str = ""
    ) -> _Head:
        """Return its answer."""
        ...

    async def stream(
        self, path: str, headers: Mapping[str, str], body: bytes, account: str
    ) -> tuple[_Head, AsyncIterator[bytes]]:
        """Return the head of its answer, and the body as it comes."""
        ...

    async def forget_node(self, node_id: int) -> None:
        """Let a node count as gone."""
        ...


class NodeKeeper(Protocol):
    """Which SuperNode is whose."""

    def of(self, principal: str) -> int | None:
        """Return the node of a site, None before it registered one."""
        ...

    def has_key(self, principal: str, public_key: bytes) -> bool:
        """Return whether the site registered its node with this key."""
        ...

    async def set(self, principal: str, node_id: int, public_key: bytes) -> None:
        """Remember the node of a site."""
        ...


async def passed(
    upstream: Upstream, path: str, headers: Mapping[str, str], body: bytes, account: str = ""
) -> Answer:
    """Return Flower's answer to a request."""
    found = await upstream.pass_on(path, headers, body, account=account)
    return Answer(found.status, found.content_type, found.body)
