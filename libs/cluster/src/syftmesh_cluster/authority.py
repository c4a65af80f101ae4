"""The internal authority of an installation: ECDSA P-256 certificates for servers and clients (RFC 5280)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from syftmesh_core.errors import IntegrityFailure

_SKEW: Final = timedelta(minutes=5)
_MAX_COMMON_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def new_key() -> bytes:
    """Return a fresh P-256 key as PEM (PKCS #8)."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def make_authority(key: bytes, name: str, days: int, now: datetime) -> bytes:
    """Return the self-signed certificate of an authority.

    Args:
        key: Its key, PEM.
        name: Its name, for people who look at a chain.
        days: Days it is valid.
        now: Time, UTC.

    Raises:
        IntegrityFailure: `key` is no P-256 key (CA_DAMAGED).
    """
    private = _private_key(key)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
    builder = _builder(subject, subject, private, now, now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)


def load_authority(certificate: bytes, key: bytes) -> Authority:
    """Return the authority of a PEM certificate and its key.

    Raises:
        IntegrityFailure: They cannot be read or do not belong together (CA_DAMAGED).
    """
    private = _private_key(key)
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise _damaged() from error
    if _public(found) != _raw_public(private):
        raise _damaged()
    return Authority(found, private)


def issue(
    authority: Authority, names: Sequence[str], days: int, now: datetime, *, client: bool = True
) -> KeyPair:
    """Return a fresh key and a certificate for it; it never outlives the authority's.

    Args:
        authority: Who signs.
        names: Host names and IP addresses; the first is the common name.
        days: Days it is valid.
        now: Time, UTC.
        client: Whether it proves a client as well as a server.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_MAX_COMMON_NAME])])
    end = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
    builder = _builder(subject, authority.certificate.subject, private, now, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([*map(_san, names)]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    signed = builder.sign(authority.key, hashes.SHA256())
    return KeyPair(signed.public_bytes(Encoding.PEM), _key_pem(private))


def why_renew(pair: KeyPair, authority: Authority, names: Sequence[str], now: datetime) -> str:
    """Return why `pair` cannot stay, in words; empty when it can.

    It cannot when it is damaged, of another authority, for other names, or has less than a third of its life left.
    """
    try:
        found = x509.load_pem_x509_certificate(pair.certificate)
        private = load_pem_private_key(pair.key, password=None)
        found.verify_directly_issued_by(authority.certificate)
        sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except InvalidSignature:
        return "it is of another authority"
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return "it is damaged or of another authority"
    if not isinstance(private, ec.EllipticCurvePrivateKey) or _public(found) != _raw_public(private):
        return "its key is another one"
    if set(sans) != {*map(_san, names)}:
        return "its names changed"
    life = found.not_valid_after_utc - found.not_valid_before_utc
    if found.not_valid_after_utc - now < life / 3:
        return "less than a third of its life is left"
    return ""


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    # A little earlier, for whoever checks it with a clock that goes behind.
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(end)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise _damaged() from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged()
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _raw_public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _damaged() -> IntegrityFailure:
    return IntegrityFailure(
        "The certificate and key of the internal authority cannot be used: damaged, not ECDSA, or not of one another.",
        reason="CA_DAMAGED",
        hint="Restore the Secret from a backup, or delete it with the Secrets of all certificates to begin anew.",
    )
