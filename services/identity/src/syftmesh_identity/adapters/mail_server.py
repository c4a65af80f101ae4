"""The mail server as the settings name it."""

from __future__ import annotations

import ssl
from pathlib import Path

from syftmesh_core.errors import InvalidInput
from syftmesh_kit.private_file import read_private

from syftmesh_identity.adapters.mail import MailServer
from syftmesh_identity.settings import MailSettings


def mail_server(settings: MailSettings) -> MailServer | None:
    """Return the mail server, None where none is set; reads the files of password and authorities.

    Raises:
        InvalidInput: A file is missing or holds nothing that can be used (SETTING_INVALID).
        WrongState: The password's file is open to others (FILE_NOT_PRIVATE).
    """
    if not settings.smtp_host:
        return None
    return MailServer(
        host=settings.smtp_host,
        port=settings.mail_port,
        security=settings.smtp_security,
        user=settings.smtp_user,
        password=_password(settings.smtp_password_file),
        context=None if settings.smtp_security == "none" else _context(settings.smtp_ca_file),
        timeout_s=settings.smtp_timeout_s,
    )


def _password(path: Path | None) -> str:
    if path is None:
        return ""
    data = read_private(path)
    try:
        password = (data or b"").decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        password = ""
    if not password:
        raise _invalid("SMTP_PASSWORD_FILE", "is missing, empty, or no UTF-8 text")
    return password


def _context(path: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise _invalid("SMTP_CA_FILE", "cannot be read, or holds no PEM certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _invalid(field: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"The file of the setting {field} {what}.",
        reason="SETTING_INVALID",
        metadata={"variable": f"SYFTMESH_IDENTITY_{field}"},
    )
