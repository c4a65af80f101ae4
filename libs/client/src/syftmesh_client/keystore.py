"""The key store of one profile, which is one device: its secret keys and what it knows of others' keys.

It never holds the recovery phrase or the account root's private key.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from syftmesh_core.clock import Random, system_random
from syftmesh_core.errors import (
    AlreadyExists,
    Conflict,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Unauthenticated,
)
from syftmesh_core.identity.device import DeviceSecret, is_principal
from syftmesh_core.identity.ed25519 import is_sound_key

from syftmesh_client import keystore_cipher
from syftmesh_client.keystore_content import MAX_PRINCIPALS, StoreContent, decode_content, encode_content
from syftmesh_client.keystore_folder import PrivateFolder

STORE_FILE = "keystore.bin"
KEY_FILE = "keystore.key"
LOCK_FILE = "keystore.lock"


class KeyStore:
    """An open key store.

    Changes are in memory until `save`, which keeps what other processes saved meanwhile. Made by `create` or
    `open`. Methods may be called from several threads; `create`, `open` and `save` block on the disk, and
    compute for a fraction of a second with a passphrase: call them off the event loop.
    """

    def __init__(
        self, folder: PrivateFolder, key: keystore_cipher.StoreKey, content: StoreContent, random: Random
    ) -> None:
        self._folder = folder
        self._key = key
        self._random = random
        self._content = content
        self._new_pins: dict[str, bytes] = {}
        self._accepted: dict[str, tuple[bytes, bytes]] = {}
        self._guard = threading.RLock()

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        device: DeviceSecret,
        own_root: bytes,
        passphrase: str | None = None,
        random: Random = system_random,
    ) -> KeyStore:
        """Make and write a new store.

        Args:
            folder: Where; made with mode 0700 when it is not there.
            device: The profile's device.
            own_root: Public key of the own account root, 32 bytes; pinned for the own e-mail address.
            passphrase: Encrypt under it; without one, a key file of mode 0600 beside the store is made.
            random: Source of keys and salts.

        Raises:
            AlreadyExists: KEYSTORE_EXISTS.
            InvalidInput: PASSPHRASE_INVALID for an empty one, ROOT_KEY_INVALID.
            WrongState: KEYSTORE_MODE when the folder is open to others.
            Unavailable: KEYSTORE_UNWRITABLE.
        """
        _check_root(own_root)
        private = PrivateFolder(folder, random)
        private.create()
        with private.locked(LOCK_FILE):
            if private.has(STORE_FILE):
                raise AlreadyExists(
                    "There is a key store for this profile already: use it, or choose another profile.",
                    reason="KEYSTORE_EXISTS",
                )
            if passphrase is None:
                secret = random(keystore_cipher.KEY_BYTES)
                private.replace(KEY_FILE, secret)
                key = keystore_cipher.from_key_file(secret)
            else:
                key = keystore_cipher.from_new_passphrase(passphrase, random)
            content = StoreContent(
                device=device,
                own_root=own_root,
                phrase_confirmed=False,
                pins={device.principal: own_root},
                list_versions={},
            )
            private.replace(STORE_FILE, key.seal(encode_content(content), random))
        return cls(private, key, content, random)

    @classmethod
    def open(cls, folder: Path, passphrase: str | None = None, *, random: Random = system_random) -> KeyStore:
        """Read a store.

        Args:
            folder: Where it is.
            passphrase: For a store that was made with one; not used otherwise.
            random: Source of salts for later writing.

        Raises:
            NotFound: KEYSTORE_MISSING when there is none.
            IntegrityFailure: KEYSTORE_DAMAGED when it, or its key file, does not hold or is gone.
            Unauthenticated: KEYSTORE_LOCKED when it needs a passphrase, KEYSTORE_PASSPHRASE when it is wrong.
            WrongState: KEYSTORE_MODE when folder or files are open to others; the hint is the command that
                mends it.
        """
        private = PrivateFolder(folder, random)
        private.check()
        data = private.read(STORE_FILE)
        key = _store_key(private, data, passphrase)
        return cls(private, key, decode_content(key.open(data)), random)

    @property
    def device(self) -> DeviceSecret:
        """The profile's device with its secret keys."""
        return self._content.device

    @property
    def own_root(self) -> bytes:
        """Public key of the own account root, 32 bytes."""
        return self._content.own_root

    @property
    def phrase_confirmed(self) -> bool:
        """Whether the recovery phrase was typed back once."""
        return self._content.phrase_confirmed

    @property
    def pinned_roots(self) -> dict[str, bytes]:
        """Account root by e-mail address, a copy."""
        return dict(self._content.pins)

    def pinned(self, email: str) -> bytes | None:
        """Return the account root pinned for `email`, 32 bytes, or None before first contact."""
        return self._content.pins.get(email)

    def pin(self, email: str, root: bytes) -> None:
        """Remember `root` as the account root of `email`; nothing happens when it is pinned already.

        Raises:
            IntegrityFailure: KEY_CHANGED when another root is pinned.
            InvalidInput: ROOT_KEY_INVALID for no usable key or e-mail address.
            LimitExceeded: TOO_MANY_PINS.
        """
        _check_root(root)
        if not is_principal(email):
            raise InvalidInput("A root is pinned for an e-mail address.", reason="ROOT_KEY_INVALID")
        with self._guard:
            known = self._content.pins.get(email)
            if known == root:
                return
            if known is not None:
                raise _key_changed(email)
            if len(self._content.pins) >= MAX_PRINCIPALS:
                raise LimitExceeded("The key store remembers no more principals.", reason="TOO_MANY_PINS")
            self._new_pins[email] = root
            self._content = replace(self._content, pins={**self._content.pins, email: root})

    def accept_root(self, email: str, *, old: bytes, new: bytes) -> None:
        """Replace the pinned root of `email`, after a person checked the new one.

        The versions of its device lists start anew.

        Raises:
            IntegrityFailure: KEY_CHANGED when `old` is not what is pinned.
            InvalidInput: ROOT_KEY_INVALID for no usable key, or for the own account, which only `create`
                sets.
        """
        _check_root(new)
        if email == self.device.principal:
            raise InvalidInput("The own account's root cannot be replaced.", reason="ROOT_KEY_INVALID")
        with self._guard:
            if self._content.pins.get(email) != old:
                raise _key_changed(email)
            first_old = self._accepted.get(email, (old, new))[0]
            self._accepted[email] = (self._new_pins.pop(email, first_old), new)
            self._content = _with_root(self._content, email, new)

    def list_version(self, email: str) -> int:
        """Return the highest device-list version seen of `email`, 0 before the first."""
        return self._content.list_versions.get(email, 0)

    def note_list_version(self, email: str, version: int) -> None:
        """Remember that a verified device list of this version was seen.

        Raises:
            IntegrityFailure: DEVICE_LIST_ROLLBACK when a newer one was seen before.
        """
        with self._guard:
            seen = self.list_version(email)
            if version < seen:
                raise IntegrityFailure(
                    f"The device list of {email} has version {version}, and {seen} was seen before: an old "
                    f"one is not used.",
                    reason="DEVICE_LIST_ROLLBACK",
                    metadata={"principal": email, "version": str(version), "seen": str(seen)},
                )
            versions = {**self._content.list_versions, email: version}
            self._content = replace(self._content, list_versions=versions)

    def confirm_phrase(self) -> None:
        """Remember that the recovery phrase was typed back."""
        with self._guard:
            self._content = replace(self._content, phrase_confirmed=True)

    def save(self) -> None:
        """Write the changes, on top of what others saved since this store was opened.

        Raises:
            IntegrityFailure: KEY_CHANGED when somebody else pinned another root for the same e-mail address
                meanwhile: theirs stays, everything else is saved; KEYSTORE_DAMAGED.
            Conflict: KEYSTORE_REPLACED when the store now holds another device.
            NotFound: KEYSTORE_MISSING.
            WrongState: KEYSTORE_MODE.
            Unavailable: KEYSTORE_UNWRITABLE.
        """
        with self._guard, self._folder.locked(LOCK_FILE):
            self._folder.check()
            stored = decode_content(self._key.open(self._folder.read(STORE_FILE)))
            if stored.device.to_bytes() != self.device.to_bytes():
                raise Conflict("The key store now holds another device.", reason="KEYSTORE_REPLACED")
            merged, refused = self._merge(stored)
            self._folder.replace(STORE_FILE, self._key.seal(encode_content(merged), self._random))
            self._content = merged
            self._new_pins.clear()
            self._accepted.clear()
        if refused:
            raise _key_changed(refused[0])

    def __repr__(self) -> str:
        return f"KeyStore(device={self.device!r})"

    def _merge(self, stored: StoreContent) -> tuple[StoreContent, list[str]]:
        # Only what was changed here is put on top, so a root that another process accepted is not undone.
        merged, refused = stored, []
        for email, root in self._new_pins.items():
            if merged.pins.get(email, root) != root:
                refused.append(email)
            merged = replace(merged, pins={email: root, **merged.pins})
        for email, (old, new) in self._accepted.items():
            if merged.pins.get(email, old) not in (old, new):
                refused.append(email)
            elif merged.pins.get(email) != new:
                merged = _with_root(merged, email, new)
        versions = dict(merged.list_versions)
        for email, version in self._content.list_versions.items():
            # A version counts under the root it was seen with.
            if merged.pins.get(email) == self._content.pins.get(email):
                versions[email] = max(version, versions.get(email, 0))
        confirmed = stored.phrase_confirmed or self._content.phrase_confirmed
        return replace(merged, list_versions=versions, phrase_confirmed=confirmed), refused


def _store_key(folder: PrivateFolder, data: bytes, passphrase: str | None) -> keystore_cipher.StoreKey:
    if keystore_cipher.needs_passphrase(data):
        if passphrase is None:
            raise Unauthenticated(
                "The key store needs its passphrase.",
                reason="KEYSTORE_LOCKED",
                hint="Give the passphrase with which the store was made.",
            )
        return keystore_cipher.from_passphrase(passphrase, data)
    try:
        return keystore_cipher.from_key_file(folder.read(KEY_FILE))
    except NotFound:  # the store is there and its key is gone: that is damage, not absence
        keystore_cipher.refuse_damaged()


def _with_root(content: StoreContent, email: str, root: bytes) -> StoreContent:
    versions = {name: version for name, version in content.list_versions.items() if name != email}
    return replace(content, pins={**content.pins, email: root}, list_versions=versions)


def _check_root(root: bytes) -> None:
    if not is_sound_key(root):
        raise InvalidInput("An account root is a 32-byte Ed25519 public key.", reason="ROOT_KEY_INVALID")


def _key_changed(email: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"The account key of {email} is not the one known from before: nothing is sent or opened until a "
        f"person has checked it.",
        reason="KEY_CHANGED",
        metadata={"principal": email},
        hint=f"syftmesh keys verify {email}",
    )
