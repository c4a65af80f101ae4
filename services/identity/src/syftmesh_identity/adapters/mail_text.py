"""The text of the mail with a login code."""

from __future__ import annotations

from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from syftmesh_core.principal import normalise_principal

from syftmesh_identity.domain.mail import CodeMail


def code_message(mail: CodeMail, *, sender: str, issuer: str, message_id: str, now_ms: int) -> EmailMessage:
    """Return the message; headers are made of checked addresses alone, so that none can be smuggled in.

    There is no link in it: people should not learn to follow links in mails about logins. Nor is the code in the
    subject, which lock screens show and mail servers log.

    Args:
        mail: Whom, and what.
        sender: The mesh's own address.
        issuer: Which mesh it is.
        message_id: Left part of the message's id.
        now_ms: Its date, Unix milliseconds.

    Raises:
        InvalidInput: An address is none (PRINCIPAL_INVALID).
    """
    mesh = issuer.removeprefix("https://")
    message = EmailMessage(policy=SMTP)
    message["From"] = _address(sender)
    message["To"] = _address(mail.principal)
    message["Subject"] = "Your login code"
    message["Date"] = format_datetime(datetime.fromtimestamp(now_ms // 1000, UTC))
    message["Message-ID"] = f"<{message_id}@{sender.partition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notice comes back
    message.set_content(
        "Somebody, probably you, wants to log in to SyftMesh\n"
        f"at {mesh}\n"
        f"as {mail.principal}.\n"
        "\n"
        f"The code is: {mail.code}\n"
        "\n"
        f"It holds for {mail.ttl_s // 60} minutes and works once. Type it where you asked for it,\n"
        "and give it to nobody: no operator will ask you for it.\n"
        "\n"
        "If it was not you, do nothing: without the code nobody gets in.\n"
    )
    return message


def _address(text: str) -> Address:
    # By its parts: ``.a@x.example`` is a principal, and no address to the parser.
    local, _, domain = normalise_principal(text).partition("@")
    return Address(username=local, domain=domain)
