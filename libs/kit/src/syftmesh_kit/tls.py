"""Who a process is inside the hub: one certificate, shown and asked for on every connection (mutual TLS).

The files are a Secret's, which kubelet replaces while the process runs: servers and clients made here take the
new ones with their next connections.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from syftmesh_core.errors import InvalidInput, MeshError, Unauthenticated

from syftmesh_kit.private_file import read_private

FOLLOW_S: Final = 20.0
"""Seconds between two looks at the files; kubelet itself takes up to a minute to bring new ones."""

_log: Any = structlog.get_logger("syftmesh.tls")


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """Certificate chain, private key and trusted authorities, each PEM."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes

    @property
    def digest(self) -> str:
        """Return a name of this very content."""
        return hashlib.sha256(b"\0".join((self.cert, self.key, self.ca))).hexdigest()


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """Where certificate, key and trusted authorities of a process lie.

    Attributes:
        cert_file: Certificate chain, PEM.
        key_file: Its private key, PEM; private as `private_file` says.
        ca_file: Authorities whose certificates the other side must show, PEM.
    """

    cert_file: Path
    key_file: Path
    ca_file: Path

    def read(self) -> TlsMaterial:
        """Return the content of the files.

        Raises:
            InvalidInput: One is missing or damaged, or key and certificate do not belong together
                (TLS_FILES_INVALID).
            WrongState: The key is open to others (FILE_NOT_PRIVATE).
        """
        try:
            key = read_private(self.key_file)
            material = TlsMaterial(self.cert_file.read_bytes(), key or b"", self.ca_file.read_bytes())
            leaf = x509.load_pem_x509_certificate(material.cert)
            is_pair = _public(leaf.public_key()) == _public(
                load_pem_private_key(material.key, None).public_key()
            )
            x509.load_pem_x509_certificates(material.ca)
        except (OSError, ValueError, TypeError) as error:
            raise _invalid(self) from error
        if not is_pair:
            raise _invalid(self)
        return material

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return gRPC server credentials that require a client certificate and follow the files.

        Raises:
            InvalidInput: As `read`; so does WrongState.
        """
        fetch: Any = _Fetcher(self)  # the stubs know no None, which says that all is as it was
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self.read()), fetch, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC client credentials of the files as they are now.

        Raises:
            InvalidInput: As `read`; so does WrongState.
        """
        now = self.read()
        return grpc.ssl_channel_credentials(now.ca, now.key, now.cert)

    def client_context(self) -> ssl.SSLContext:
        """Return a context for clients; give it to `follow` to keep it at the files' newest content.

        Raises:
            InvalidInput: As `read`; so does WrongState.
        """
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def server_context(self) -> ssl.SSLContext:
        """Return a context for servers that requires a client certificate; see `client_context`.

        Raises:
            InvalidInput: As `read`; so does WrongState.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._loaded(context)

    def load(self, context: ssl.SSLContext) -> None:
        """Bring the files' content into `context`, for its next connections.

        Raises:
            InvalidInput: As `read`; so does WrongState.
        """
        self._loaded(context)

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        now = self.read()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=now.ca.decode("ascii"))
            context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ValueError) as error:
            raise _invalid(self) from error
        return context


async def follow(
    identity: TlsIdentity, contexts: Iterable[ssl.SSLContext], *, pause_s: float = FOLLOW_S
) -> None:
    """Keep `contexts` at the newest content of the files, for ever.

    A context only gains authorities: one that is to be trusted no more goes with the next start.
    """
    known = await asyncio.to_thread(_digest, identity)
    while True:
        await asyncio.sleep(pause_s)
        found = await asyncio.to_thread(_digest, identity)
        if found in ("", known):
            continue
        try:
            for context in contexts:
                identity.load(context)
        except MeshError as error:  # the files are being replaced: the next look sees them whole
            _log.warning("tls.files_refused", reason=error.reason)
            continue
        known = found
        _log.info("tls.files_renewed")


def peer_names(auth_context: Any) -> frozenset[str]:
    """Return the subject alternative names of the certificate that the other side of a gRPC call showed."""
    found = (auth_context or {}).get("x509_subject_alternative_name") or ()
    return frozenset(name.decode("utf-8", "replace") for name in found)


def certificate_names(certificate: Any) -> frozenset[str]:
    """Return the subject alternative names of a certificate as `ssl` tells it (``getpeercert``)."""
    return frozenset(value for _, value in (certificate or {}).get("subjectAltName", ()))


def check_peer(names: Iterable[str], allowed: frozenset[str]) -> None:
    """Refuse a caller whose certificate bears none of the `allowed` names; an empty set allows any.

    Raises:
        Unauthenticated: PEER_REFUSED.
    """
    if allowed and allowed.isdisjoint(names):
        raise Unauthenticated(
            "The certificate of the caller is not one that this service takes calls from.",
            reason="PEER_REFUSED",
            hint="Name its subject alternative name in the setting TLS_PEERS of the service.",
        )


class _Fetcher:
    """Gives gRPC the configuration when the files have changed; called by its threads at each handshake."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._identity = identity
        self._known = identity.read().digest

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            now = self._identity.read()
        except MeshError as error:  # while they are replaced: the old ones hold
            _log.warning("tls.files_refused", reason=error.reason)
            return None
        if now.digest == self._known:
            return None
        self._known = now.digest
        return _configuration(now)


def _configuration(now: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(now.key, now.cert)], now.ca)


def _digest(identity: TlsIdentity) -> str:
    try:
        return identity.read().digest
    except MeshError as error:
        _log.warning("tls.files_refused", reason=error.reason)
        return ""


def _public(key: Any) -> bytes:
    raw: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return raw


def _invalid(identity: TlsIdentity) -> InvalidInput:
    names = ", ".join(path.name for path in (identity.cert_file, identity.key_file, identity.ca_file))
    return InvalidInput(
        f"The TLS files ({names}) are missing or damaged, or the key is not the certificate's. Check the "
        "Secret that they come from.",
        reason="TLS_FILES_INVALID",
        metadata={"files": names},
    )
