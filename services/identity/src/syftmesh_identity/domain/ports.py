"""What the use cases of identity need from outside."""

from __future__ import annotations

from collections.abc import Sequence
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
from syftmesh_identity.domain.ring import Ring, RingKey

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

    async def revoke_principal(self, principal: str) -> None:
        """Refuse every access token of a person."""
        ...


class AccessIssuer(Protocol):
    """Signs access tokens."""

    def issue(self, principal: str, device_id: str, audiences: Sequence[str] = ()) -> IssuedAccess:
        """Return a fresh access token for these services; without any for all of the hub's.

        Raises:
            Unavailable: There is no key to sign with yet (STARTING).
            IntegrityFailure: The key to sign with cannot be read (SIGNING_KEY_DAMAGED).
        """
        ...

    def issue_guest(self) -> IssuedAccess:
        """Return a fresh access token of a guest, which ends soon; raises as `issue`."""
        ...


class SigningKeys(Protocol):
    """Makes signing keys, and signs with those of the newest ring that it was shown."""

    def root(self, now_ms: int) -> RingKey:
        """Return the key of the service's own file, as one that signs from now on."""
        ...

    def mint(self, now_ms: int) -> RingKey:
        """Return a fresh key, sealed for the service's replicas."""
        ...

    def follow(self, ring: Stored[Ring]) -> None:
        """Sign by `ring` from now on, unless a newer one was shown before."""
        ...


class PublishedKeys(Protocol):
    """The key set that every verifier follows; returns once it is stored."""

    async def publish(self, key: RingKey) -> None:
        """Let every service accept tokens that `key` signed."""
        ...

    async def retire(self, kid: str) -> None:
        """Let every service refuse tokens that the key signed."""
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
