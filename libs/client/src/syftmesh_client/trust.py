"""Whom a client takes for the hub: the certificates that the hub's own must come from, for every connection alike."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc
import httpx
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound
from syftmesh_core.quote import quoted

CA_FILE: Final = "hub-ca.pem"
"""In a device's folder: the certificates that its hub's must come from."""

REASON_UNTRUSTED: Final = "SERVER_UNTRUSTED"
REASON_DOWNGRADE: Final = "SERVER_DOWNGRADE"
_MAX_BYTES: Final = 1 << 20
_PROOF_S: Final = 10.0
_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_CA_HINT: Final = "--ca-file FILE, with the hub's CA certificate from its operator"
_RENEW_HINT: Final = "Ask the hub's operator to renew the certificate."
_NAME_HINT: Final = "Use one of the names that the hub's operator gave it."
# Codes of X509_V_ERR_* (OpenSSL, x509_vfy.h).
_WORDS: Final = {
    9: ("is not valid yet; look at this machine's clock", "timedatectl"),
    10: ("has expired", _RENEW_HINT),
    62: ("is made out to another name", _NAME_HINT),
    64: ("is made out to another address", _NAME_HINT),
}
_STRANGE: Final = ("comes from nobody whom this program trusts", _CA_HINT)


@dataclass(frozen=True, slots=True)
class HubTrust:
    """The certificates that prove the hub.

    Attributes:
        pem: PEM certificates, and only these count; None: the well-known authorities of the Internet.
    """

    pem: bytes | None = field(default=None, repr=False)

    @classmethod
    def of_file(cls, path: Path) -> HubTrust:
        """Return the trust in the certificates of `path`; whatever else stands in the file is left out.

        Raises:
            NotFound: CA_FILE_MISSING.
            InvalidInput: It holds no certificates, or a private key (CA_FILE_INVALID).
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise NotFound(
                f"The file {quoted(path.name)} with the hub's CA certificate cannot be read.",
                reason="CA_FILE_MISSING",
                metadata={"file": quoted(path.name)},
                hint=_CA_HINT,
            ) from error
        return cls(_certificates(data, path.name))

    @classmethod
    def of_folder(cls, folder: Path, ca_file: Path | None = None) -> HubTrust:
        """Return what a device trusts: `ca_file` when given, else ``hub-ca.pem`` of its folder when there.

        Raises:
            NotFound: `ca_file` cannot be read (CA_FILE_MISSING).
            InvalidInput: CA_FILE_INVALID.
        """
        kept = folder / CA_FILE
        if ca_file is None and not kept.exists():
            return cls()
        return cls.of_file(ca_file or kept)

    def context(self) -> ssl.SSLContext:
        """Return what a TLS client checks by; reading the well-known authorities takes some 15 ms."""
        if self.pem is None:
            return httpx.create_ssl_context()
        return ssl.create_default_context(cadata=self.pem.decode("ascii"))

    def verify(self, url: str) -> ssl.SSLContext:
        """Return the context for `url`: for a plaintext one it trusts nobody, and is made at once."""
        if urlsplit(url).scheme == "https":
            return self.context()
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what gRPC channels to the hub check by."""
        return grpc.ssl_channel_credentials(root_certificates=self.pem)

    def object_client(self, hub_url: str, *, timeout_s: float) -> httpx.AsyncClient:
        """Return a client for objects: at the hub by this trust, at a store elsewhere by the well-known one.

        Its base URL is the hub's, where objects lie whose URLs name no host.
        """
        parts = urlsplit(hub_url)
        mounts = {}
        if self.pem is not None and parts.scheme == "https":
            mounts[f"https://{parts.netloc}"] = httpx.AsyncHTTPTransport(
                verify=self.context(), trust_env=False
            )
        return httpx.AsyncClient(base_url=hub_url, trust_env=False, timeout=timeout_s, mounts=mounts)

    async def prove(self, address: str, hub_url: str) -> None:
        """Look at the certificate behind a gRPC address that is not the hub's own: gRPC itself names no cause.

        An address that does not answer is left to gRPC, which tries again.

        Raises:
            IntegrityFailure: SERVER_UNTRUSTED.
        """
        found, hub = urlsplit(f"https://{address}"), urlsplit(hub_url)
        host, port = found.hostname, found.port or 443
        if host is None or (host, port) == (hub.hostname, hub.port or 443):
            return
        context = self.context()
        context.set_alpn_protocols(["h2"])
        try:
            async with asyncio.timeout(_PROOF_S):
                _, writer = await asyncio.open_connection(host, port, ssl=context)
        except ssl.SSLCertVerificationError as error:
            raise untrusted(error, address) from error
        except (OSError, TimeoutError):
            return
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def rejection(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """Return the refusal of a certificate that `error` was raised for, None when it had another cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def untrusted(error: ssl.SSLCertVerificationError, server: str) -> IntegrityFailure:
    """Return the error for a hub whose certificate does not prove it."""
    what, hint = _WORDS.get(getattr(error, "verify_code", 0), _STRANGE)
    return IntegrityFailure(
        f"The certificate at {quoted(server)} {what}; nothing was sent.",
        reason=REASON_UNTRUSTED,
        metadata={"server": quoted(server)},
        hint=hint,
    )


def downgrade(what: str) -> IntegrityFailure:
    """Return the error for a hub reached by TLS that sends its clients to plaintext."""
    return IntegrityFailure(
        f"The hub is reached by TLS and says that its {what} is plaintext: that is refused.",
        reason=REASON_DOWNGRADE,
        hint="Ask the hub's operator to switch TLS on there.",
    )


def _certificates(data: bytes, name: str) -> bytes:
    blocks = _BLOCK.findall(data)
    problem = ""
    if b"PRIVATE KEY" in data:
        problem = "holds a private key, which belongs to the hub alone"
    elif not blocks:
        problem = "holds no PEM certificate"
    pem = b"\n".join(blocks) + b"\n"
    if not problem:
        try:
            ssl.create_default_context(cadata=pem.decode("ascii"))
        except (ssl.SSLError, ValueError):
            problem = "holds what is no certificate"
    if problem:
        raise InvalidInput(
            f"The file {quoted(name)} {problem}.",
            reason="CA_FILE_INVALID",
            metadata={"file": quoted(name)},
            hint=_CA_HINT,
        )
    return pem
