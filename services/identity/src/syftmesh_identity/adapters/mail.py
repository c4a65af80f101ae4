"""Mail by SMTP (RFC 5321), with TLS from the start (RFC 8314) or by STARTTLS (RFC 3207)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiosmtplib
import structlog
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import MeshError, Unavailable

from syftmesh_identity.adapters.mail_text import code_message
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.mail import CodeMail, Letter, Mailer, MailSession

MAX_SESSIONS: Final = 16
"""Conversations with the mail server at once; more wait, no longer than for an answer of the server."""

_BEHIND_S: Final = 0.05
_FAULTS: Final = (aiosmtplib.SMTPException, OSError, ValueError)
_log: Any = structlog.get_logger("syftmesh.identity")


@dataclass(frozen=True, slots=True)
class MailServer:
    """The mail server, and how it lets us in.

    Attributes:
        host: Its name, which its certificate must bear.
        port: Its port.
        security: ``tls`` from the first byte, ``starttls`` before anything else is said, ``none``.
        user: Whom we log in as; empty for nobody.
        password: Of that user.
        context: What its certificate is checked by; None with ``none``.
        timeout_s: Longest wait for it to let us in, and then for it to take a mail, in seconds.
    """

    host: str
    port: int
    security: str
    user: str = ""
    password: str = field(default="", repr=False)
    context: ssl.SSLContext | None = field(default=None, repr=False)
    timeout_s: float = 10.0

    def client(self, name: str) -> aiosmtplib.SMTP:
        """Return a client that is not connected; `name` is how it introduces itself."""
        return aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.user or None,
            password=self.password or None,
            local_hostname=name,
            timeout=self.timeout_s,
            use_tls=self.security == "tls",
            start_tls=self.security == "starttls",
            tls_context=self.context,
        )


class SmtpMailer(Mailer):
    """Sends mail; `start` it first.

    Args:
        server: The mail server.
        sender: The mesh's own address.
        issuer: Which mesh it is.
        fingerprint: Stands for recipients in the log.
        clock: Dates of mails.
        random: Source of message ids.
    """

    def __init__(
        self,
        server: MailServer,
        sender: str,
        issuer: str,
        fingerprint: Fingerprint,
        clock: Clock,
        random: Random,
    ) -> None:
        self._server = server
        self._sender = sender
        self._issuer = issuer
        self._fingerprint = fingerprint
        self._clock = clock
        self._random = random
        self._places = asyncio.Semaphore(MAX_SESSIONS)
        self._tasks: asyncio.TaskGroup | None = None
        self._handovers: set[asyncio.Task[None]] = set()

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Let mails be handed over in `tasks`, behind the answers to those who asked for them."""
        self._tasks = tasks

    async def drain(self) -> None:
        """Return when everything that was promised has been handed over, or has failed."""
        while self._handovers:
            await asyncio.wait(self._handovers)

    def write(self, mail: CodeMail) -> Letter:
        """Return the mail as it goes to the server."""
        message = code_message(
            mail,
            sender=self._sender,
            issuer=self._issuer,
            message_id=uuid7(self._clock, self._random),
            now_ms=self._clock.now_ms(),
        )
        return Letter(mail.principal, message.as_bytes())

    async def open(self) -> MailSession:
        """Begin a conversation; raises as `Mailer.open`."""
        if self._tasks is None:
            raise Unavailable("The identity service is starting. Try again.", reason="STARTING")
        client = self._server.client(self._sender.partition("@")[2])
        is_in = False
        try:
            async with asyncio.timeout(self._server.timeout_s):
                await self._places.acquire()
                try:
                    await client.connect()
                    is_in = True
                finally:
                    if not is_in:
                        self._places.release()
        except _FAULTS as error:
            _log.warning("identity.mail_away", fault=_fault(error))
            raise Unavailable(
                "The mail server of this mesh does not take mail now. Try again in a minute.",
                reason="MAIL_AWAY",
            ) from error
        return _Session(self, client, self._tasks)

    async def hand_over(
        self, client: aiosmtplib.SMTP, letter: Letter | None, failed: Callable[[], Awaitable[None]]
    ) -> None:
        """Let the server take `letter`, then end the conversation."""
        try:
            # Until then the answer is on its way: no work that only some of the mails bring delays it.
            await asyncio.sleep(_BEHIND_S)
            async with asyncio.timeout(self._server.timeout_s):
                if letter is not None:
                    await client.sendmail(self._sender, letter.principal, letter.data)
        except _FAULTS as error:
            recipient = "" if letter is None else self._fingerprint.of("log", letter.principal)[:16]
            _log.warning("identity.mail_refused", fault=_fault(error), recipient=recipient)
            await _tell(failed)
        else:
            with suppress(*_FAULTS):  # the mail is the server's already, however it says good-bye
                await client.quit()
        finally:
            client.close()
            self._places.release()

    def keep(self, task: asyncio.Task[None]) -> None:
        """Remember a handover until it has ended."""
        self._handovers.add(task)
        task.add_done_callback(self._handovers.discard)


class _Session(MailSession):
    def __init__(self, mailer: SmtpMailer, client: aiosmtplib.SMTP, tasks: asyncio.TaskGroup) -> None:
        self._mailer = mailer
        self._client = client
        self._tasks = tasks

    def finish(self, letter: Letter | None, failed: Callable[[], Awaitable[None]]) -> None:
        work = self._mailer.hand_over(self._client, letter, failed)
        self._mailer.keep(self._tasks.create_task(work))


async def _tell(failed: Callable[[], Awaitable[None]]) -> None:
    try:
        await failed()
    except MeshError as error:  # the code ends by its age, and the places get free
        _log.warning("identity.mail_withdrawal_failed", reason=error.reason)


def _fault(error: BaseException) -> str:
    """Return what kind of fault it was; the server's own words may name people."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return f"SMTPRecipientsRefused {', '.join(str(refusal.code) for refusal in error.recipients)}"
    code = getattr(error, "code", None)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    kind = type(cause if cause is not None else error).__name__
    return f"{kind} {code}" if isinstance(code, int) else kind
