"""What login by code needs of the mail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CodeMail:
    """One mail with a login code.

    Attributes:
        principal: Whom it goes to.
        code: The code as people read it.
        ttl_s: For how many seconds it holds.
    """

    principal: str
    code: str = field(repr=False)
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail as it goes to the server.

    Attributes:
        principal: Whom it goes to.
        data: The message (RFC 5322).
    """

    principal: str
    data: bytes = field(repr=False)


class MailSession(Protocol):
    """A conversation with the mail server, which has let us in; nothing was said yet of whom it is about."""

    def finish(self, letter: Letter | None, failed: Callable[[], Awaitable[None]]) -> None:
        """Hand over `letter`, or nothing, and end the conversation; returns at once, the work goes on behind it.

        Args:
            letter: What to send.
            failed: Called when the server did not take it.
        """
        ...


class Mailer(Protocol):
    """Writes mails and talks to the mail server."""

    def write(self, mail: CodeMail) -> Letter:
        """Return the mail as it goes to the server."""
        ...

    async def open(self) -> MailSession:
        """Begin a conversation, which the caller must finish.

        Raises:
            Unavailable: The server does not answer, does not prove itself or does not let us in (MAIL_AWAY).
        """
        ...
