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


class MailSession(Protocol):
    """A conversation with the mail server, which has let us in; nothing was said yet of whom it is about."""

    def finish(self, mail: CodeMail | None, failed: Callable[[], Awaitable[None]]) -> None:
        """Hand over `mail`, or nothing, and end the conversation; returns at once, the work goes on behind it.

        Args:
            mail: What to send.
            failed: Called when the server did not take it.
        """
        ...


class Mailer(Protocol):
    """Talks to the mail server."""

    async def open(self) -> MailSession:
        """Begin a conversation, which the caller must finish.

        Raises:
            Unavailable: The server does not answer, does not prove itself or does not let us in (MAIL_AWAY).
        """
        ...
