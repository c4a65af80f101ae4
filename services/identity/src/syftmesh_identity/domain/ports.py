"""What the use cases of identity need from outside."""

from __future__ import annotations

from typing import Protocol, TypeVar

from syftmesh_identity.domain.model import (
    Account,
    Device,
    Family,
    IssuedAccess,
    JoinToken,
    Site,
    Stored,
)
from syftmesh_identity.domain.provider import DeviceAuthorization, PollAnswer, Provider

Record = TypeVar("Record")


class RecordStore(Protocol[Record]):
    """Records by key with compare-and-set. Every method raises Unavailable when the state is out of reach."""

    async def get(self, key: str) -> Stored[Record] | None:
        """Return the record of `key`, or None."""
        ...

    async def create(self, key: str, record: Record) -> bool:
        """Write `record` only if there is none; return whether it was written."""
        ...

    async def replace(self, key: str, record: Record, revision: int) -> bool:
        """Write `record` only if the revision is still `revision`; return whether it was written."""
        ...

    async def list(self, prefix: str = "") -> list[Record]:
        """Return the records below a key part, or all of them, in no particular order."""
        ...


class Revocations(Protocol):
    """Tells every verifier what is refused from now on; returns once that is stored."""

    async def revoke_token(self, token_id: str, expires_ms: int) -> None:
        """Refuse one access token."""
        ...

    async def revoke_device(self, device_id: str) -> None:
        """Refuse every access token of a device."""
        ...


class AccessIssuer(Protocol):
    """Signs access tokens."""

    def issue(self, principal: str, device_id: str) -> IssuedAccess:
        """Return a fresh access token."""
        ...


class LocalSecret(Protocol):
    """The token of the embedded mesh that whoever reads the state folder can show."""

    async def read(self) -> str | None:
        """Return the token, or None when this is no embedded mesh."""
        ...


class Stores(Protocol):
    """The state of identity."""

    @property
    def devices(self) -> RecordStore[Device]:
        """Devices by device id."""
        ...

    @property
    def accounts(self) -> RecordStore[Account]:
        """Accounts by principal."""
        ...

    @property
    def families(self) -> RecordStore[Family]:
        """Refresh families by family id."""
        ...

    @property
    def join_tokens(self) -> RecordStore[JoinToken]:
        """Join tokens by `join.token_key`."""
        ...

    @property
    def sites(self) -> RecordStore[Site]:
        """Sites by principal."""
        ...


class ProviderClient(Protocol):
    """The device flow of one OIDC provider (RFC 8628)."""

    @property
    def provider(self) -> Provider:
        """What the operator says of it."""
        ...

    async def authorize(self) -> DeviceAuthorization:
        """Return a new code for a person to confirm.

        Raises:
            Unavailable: PROVIDER_AWAY.
        """
        ...

    async def poll(self, device_code: str) -> PollAnswer:
        """Return how far the login is; the ID token of one that is confirmed has been verified.

        Raises:
            Unavailable: PROVIDER_AWAY.
            Unauthenticated: PROVIDER_TOKEN_INVALID.
        """
        ...


class CodeSeal(Protocol):
    """Keeps a provider's device code secret where a login is stored."""

    def seal(self, code: str, login: str) -> str:
        """Return `code` sealed for the login of this key alone."""
        ...

    def open(self, sealed: str, login: str) -> str:
        """Return the code.

        Raises:
            IntegrityFailure: It is not of this login, or of another signing key file (RECORD_DAMAGED).
        """
        ...
