"""Makes the secrets of an installation once, and keeps them: authority, certificates, passwords, keys.

``python -m syftmesh_cluster.bootstrap --config FILE`` fills Secrets of the pod's namespace, with ``--folder DIR``
files of the same names. Run as often as one likes, and by several at once: what is there stays, except certificates
that must be renewed and the server's list of passwords, which follows the users' Secrets.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from syftmesh_core.clock import Clock, SystemClock, to_datetime
from syftmesh_core.errors import Conflict, Unavailable, WrongState

from syftmesh_cluster.authority import (
    Authority,
    KeyPair,
    issue,
    load_authority,
    make_authority,
    new_key,
    why_renew,
)
from syftmesh_cluster.kubernetes_secret import KubernetesTarget
from syftmesh_cluster.plan import AuthorityPlan, LeafPlan, NatsPlan, Plan, load_plan
from syftmesh_cluster.program import log_quietly, run_program, say
from syftmesh_cluster.secret_target import FolderTarget, SecretTarget

_TRIES: Final = 8
_AT_ONCE: Final = 4
_PLAIN: Final = re.compile(rb"[!#-\[\]-~]{8,256}")

Data = Mapping[str, bytes]
Made = tuple[dict[str, bytes], str]
"""Keys to set, and a word for why; no keys when all may stay."""


class Bootstrap:
    """One run.

    Args:
        plan: What to make.
        target: Where secrets are.
        clock: Wall time.
    """

    def __init__(self, plan: Plan, target: SecretTarget, clock: Clock) -> None:
        self._plan = plan
        self._target = target
        self._clock = clock
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Make what is missing; print one line per secret.

        Raises:
            NotFound, PermissionDenied, Unavailable: As `SecretTarget.read`.
            IntegrityFailure: The authority is damaged (CA_DAMAGED).
            WrongState: The authority has a certificate without a key (CA_INCOMPLETE), or a password that was
                given cannot be used (PASSWORD_UNUSABLE).
        """
        plan = self._plan
        async with asyncio.TaskGroup() as tasks:
            if plan.ca is not None:
                tasks.create_task(self._certificates(plan.ca))
            if plan.nats is not None:
                tasks.create_task(self._passwords(plan.nats))
            if plan.store is not None:
                tasks.create_task(self._ensure(plan.store.secret, _store_keys))
            if plan.signing_key is not None:
                tasks.create_task(self._ensure(plan.signing_key.secret, _signing_key))

    async def _certificates(self, wanted: AuthorityPlan) -> None:
        kept = await self._ensure(wanted.secret, lambda data: _authority(data, wanted, self._now()))
        authority = load_authority(kept["ca.crt"], kept["ca.key"])
        async with asyncio.TaskGroup() as tasks:
            for leaf in self._plan.leaves:
                tasks.create_task(self._leaf(leaf, authority, kept["ca.crt"]))

    async def _leaf(self, wanted: LeafPlan, authority: Authority, ca_pem: bytes) -> None:
        days, now = self._plan.days, self._now()
        await self._ensure(wanted.secret, lambda data: _leaf(data, wanted, authority, ca_pem, days, now))

    async def _passwords(self, wanted: NatsPlan) -> None:
        kept = await asyncio.gather(*(self._ensure(name, _password) for name in wanted.users.values()))
        passwords = dict(zip(wanted.users, (data["password"] for data in kept), strict=True))
        await self._ensure(wanted.secret, lambda data: _server_passwords(data, passwords))

    async def _ensure(self, name: str, make: Callable[[Data], Made]) -> Data:
        """Return the secret with what `make` says it lacks; whoever writes first decides, and all see the same."""
        async with self._gate:
            for _ in range(_TRIES):
                found = await self._target.read(name)
                changes, why = make(found.data)
                if not changes:
                    say(f"{name}: kept")
                    return found.data
                try:
                    await self._target.write(name, changes, found.version)
                except Conflict:
                    continue
                say(f"{name}: wrote {', '.join(changes)} ({why})")
                return {**found.data, **changes}
        raise Unavailable(
            f"The Secret {name} is changed by others all the time.",
            reason="SECRET_BUSY",
            metadata={"secret": name},
            hint="Look who writes it, and run the Job again.",
        )

    def _now(self) -> datetime:
        return to_datetime(self._clock.now_ms())


def _authority(data: Data, wanted: AuthorityPlan, now: datetime) -> Made:
    if "ca.crt" in data and "ca.key" in data:
        return {}, ""
    if "ca.crt" in data:
        raise WrongState(
            f"The Secret {wanted.secret} holds a certificate without its key, so nothing can be signed.",
            reason="CA_INCOMPLETE",
            metadata={"secret": wanted.secret},
            hint=f"Put ca.key back, or remove ca.crt from {wanted.secret} to make a new authority.",
        )
    # A key alone is what an interrupted run leaves: the key is written first.
    key = data.get("ca.key") or new_key()
    return {"ca.key": key, "ca.crt": make_authority(key, wanted.secret, wanted.days, now)}, "missing"


def _leaf(
    data: Data, wanted: LeafPlan, authority: Authority, ca_pem: bytes, days: int, now: datetime
) -> Made:
    why = "missing"
    if "tls.crt" in data and "tls.key" in data:
        why = why_renew(KeyPair(data["tls.crt"], data["tls.key"]), authority, wanted.names, now)
    if why:
        pair = issue(authority, wanted.names, days, now, client=wanted.client)
        return {"tls.key": pair.key, "tls.crt": pair.certificate, "ca.crt": ca_pem}, why
    return ({}, "") if data.get("ca.crt") == ca_pem else ({"ca.crt": ca_pem}, "the authority's certificate")


def _password(data: Data) -> Made:
    return ({}, "") if data.get("password") else ({"password": _random_text()}, "missing")


def _server_passwords(data: Data, passwords: Mapping[str, bytes]) -> Made:
    lines = [
        f'{user.upper()}_PASSWORD: "{_plain(user, value)}"\n' for user, value in sorted(passwords.items())
    ]
    text = "".join(lines).encode()
    if data.get("passwords.conf") == text:
        return {}, ""
    return {"passwords.conf": text}, "follows the users' Secrets"


def _plain(user: str, password: bytes) -> str:
    """Return a password that an existing Secret may have given, if it can stand in nats-server's configuration."""
    if not _PLAIN.fullmatch(password):
        raise WrongState(
            f"The password of the bus user {user} has characters that nats-server's configuration cannot hold.",
            reason="PASSWORD_UNUSABLE",
            metadata={"user": user},
            hint="Use printable ASCII without quotes, backslashes and spaces, and no line end.",
        )
    return password.decode()


def _store_keys(data: Data) -> Made:
    made = {"access-key": secrets.token_hex(10).encode(), "secret-key": _random_text()}
    return {key: value for key, value in made.items() if not data.get(key)}, "missing"


def _signing_key(data: Data) -> Made:
    if data.get("signing.pem"):
        return {}, ""
    key = Ed25519PrivateKey.generate()
    return {"signing.pem": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())}, "missing"


def _random_text() -> bytes:
    return secrets.token_urlsafe(32).encode()


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m syftmesh_cluster.bootstrap", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="what to make: a file in JSON or YAML")
    parser.add_argument("--folder", type=Path, help="write files below this folder instead of Secrets")
    parser.add_argument("--wait-s", type=float, default=60.0, help="seconds to wait for the API (default 60)")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    arguments = _arguments(given)
    clock = SystemClock()

    async def run() -> None:
        plan = load_plan(arguments.config)
        if arguments.folder is not None:
            target = FolderTarget(arguments.folder)
            with target.locked():
                await Bootstrap(plan, target, clock).run()
            return
        async with KubernetesTarget.in_cluster(wait_s=arguments.wait_s) as cluster:
            await Bootstrap(plan, cluster, clock).run()

    return run_program(run)


if __name__ == "__main__":
    log_quietly()
    sys.exit(main())
