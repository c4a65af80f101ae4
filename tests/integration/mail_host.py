"""A real SMTP server on a free port of this machine, which misbehaves where a test says so."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from syftmesh_kit.tls import TlsIdentity

USER, PASSWORD = "mesh", "mail-s3cret"
_CODE = re.compile(r"^The code is: (\S+)", re.MULTILINE)


@dataclass
class MailHost:
    """What arrives, and how the server behaves.

    Attributes:
        refusal: Answer to every recipient, empty to take it.
        data_answer: Answer to every message, empty to take it.
        data_s: Seconds that the server thinks about a message.
        port: Where it listens.
        connections: How often somebody connected.
        logins: How often somebody logged in with the right password.
        mails: The messages, oldest first.
        envelopes: Sender and recipients of each.
        recipients: Every recipient that was named, also those refused.
    """

    refusal: str = ""
    data_answer: str = ""
    data_s: float = 0.0
    port: int = 0
    connections: int = 0
    logins: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.recipients.append(address)
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self.data_s)
        if self.data_answer:
            return self.data_answer
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.envelopes.append((envelope.mail_from or "", list(envelope.rcpt_tos)))
        return "250 Taken"

    async def code(self, number: int, principal: str = "") -> str:
        """Return the code in the mail of that number, counted from one, once it is here."""
        async with asyncio.timeout(10):
            while len(self.mails) < number:
                await asyncio.sleep(0.01)
        mail = self.mails[number - 1]
        assert not principal or mail["To"] == principal
        found = _CODE.search(mail.get_content())
        assert found is not None
        return found[1]

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        is_known = data == LoginPassword(USER.encode(), PASSWORD.encode())
        self.logins += is_known
        return AuthResult(success=is_known, handled=False)

    @asynccontextmanager
    async def serving(
        self, *, starttls: TlsIdentity | None = None, tls: TlsIdentity | None = None, auth: bool = False
    ) -> AsyncIterator[MailHost]:
        """Serve, with STARTTLS or TLS from the first byte by these certificates; `auth` wants user and password."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"hostname": "localhost", "ident": "test", "loop": loop}
        if starttls is not None:
            options |= {"tls_context": _context(starttls), "require_starttls": True}
        if auth:
            # aiosmtpd knows of no TLS but its own STARTTLS, and warns where it should ask for a user without it.
            own = {"auth_required": True} if tls is None else {"auth_require_tls": False}
            options |= {"authenticator": self._authenticate, **own}

        def connected() -> SMTP:
            self.connections += 1
            return SMTP(self, **options)

        server = await loop.create_server(
            connected, "127.0.0.1", 0, ssl=_context(tls) if tls is not None else None
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Listen on a port, give it, and never say a word there."""
    writers: list[asyncio.StreamWriter] = []

    async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def scripted_server(scripts: Iterable[list[bytes]]) -> AsyncIterator[int]:
    """Follow the next script with each connection: a greeting, an answer to each line, a hang-up; give the port."""
    left = iter(scripts)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in next(left):
                writer.write(answer)
                await writer.drain()
                await reader.readline()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def _context(identity: TlsIdentity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    return context
