"""Steps 11 and 12: nothing private is at the hub, and the owners can prove what happened."""

from __future__ import annotations

from typing import Any, Final

from mesh.rpc.v1 import rpc_pb2
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from syftmesh_client.node import open_node
from syftmesh_client.profile import ProfileStore, node_login
from syftmesh_core.clock import uuid7
from syftmesh_core.errors import IntegrityFailure, NotFound
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo.canary.hub import OBJECTS, scan_hub
from syftmesh_standalone.demo.canary.needle import RAW_BYTES, Secret
from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport
from syftmesh_standalone.demo.data import IDENTIFIER
from syftmesh_standalone.demo.step import Checks, eventually, steadily
from syftmesh_standalone.demo.story import OWNERS, SCIENTIST, Story

FOUND: Final = "CANARY_FOUND"
BLIND: Final = "CANARY_BLIND"
INCOMPLETE: Final = "CANARY_INCOMPLETE"
PUBLIC_CONTROL: Final = "public copy"
UNSEALED_CONTROL: Final = "unsealed call"
_HUB_PARTS: Final = (OBJECTS, "nats", "s3")
_SCAN_S: Final = 60.0
_CALL_LIFE_MS: Final = 120_000
_MARKED_ROWS: Final = 40


async def canary(story: Story, checks: Checks) -> None:
    """Step 11: everything the hub holds is searched, and the search is shown to see."""
    secrets = [secret for table in story.tables.values() for secret in table.secrets()]
    report = story.scan = await _scan(story, secrets)
    where = ", ".join(f"{count} in {part}" for part, count in sorted(report.places.items()))
    checks.note(
        f"{report.scanned_bytes:,} bytes of the hub, {report.unpacked_bytes:,} unpacked from them ({where})"
    )
    empty = [part for part in _HUB_PARTS if not report.places.get(part)]
    if report.unreadable or empty:
        missing = ", ".join([*report.unreadable[:3], *empty])
        raise IntegrityFailure(f"part of the hub could not be read: {missing}", reason=INCOMPLETE)
    checks.that(True, f"all of it was read; {len(report.damaged)} compressed members broke off")
    if report.found:
        first = report.findings[0]
        raise IntegrityFailure(f"{first.what} is at the hub, as {first.form}, in {first.place}", reason=FOUND)
    checks.that(True, f"none of {len(secrets)} private identifiers and rows is in it, in no form looked for")
    await _public_copy(story, checks)
    await _unsealed_call(story, checks)


async def _scan(story: Story, secrets: list[Secret]) -> ScanReport:
    scan = CanaryScan(secrets)
    return await steadily(
        lambda: scan_hub(scan, story.mesh.hub, story.mesh.object_store()), within_s=_SCAN_S, try_s=_SCAN_S
    )


def _marker(story: Story, name: str) -> Secret:
    return Secret(f"marker of the control {name!r}", story.random(RAW_BYTES).hex())


async def _control(story: Story, checks: Checks, name: str, marker: Secret, what: str) -> None:
    report = await _scan(story, [marker])
    story.controls[name] = report.found
    if not report.found:
        raise IntegrityFailure(
            f"the control {name!r} put a marker where the hub keeps it, and the scan did not see it",
            reason=BLIND,
            metadata={"control": name},
        )
    place = report.findings[0].place.split(" > ")[0].split("/")[0]
    checks.that(True, f"{what}: the scan finds it ({report.found} times, first in {place})")


async def _public_copy(story: Story, checks: Checks) -> None:
    """Let an owner do what must not be done, with a marker: copy a table to where everybody reads."""
    owner, marker = OWNERS[0], _marker(story, PUBLIC_CONTROL)
    path = f"{owner}/public/control.csv"
    rows = "".join(f"{marker.text},{number}\n" for number in range(_MARKED_ROWS))
    data = f"{IDENTIFIER},value\n{rows}".encode()
    await story.ask(owner, lambda client: client.files.write(path, data))
    try:
        await _control(
            story, checks, PUBLIC_CONTROL, marker, "control: a table copied to public/ by its owner"
        )
    finally:
        await story.ask(owner, lambda client: _delete(client, path))


async def _delete(client: Any, path: str) -> None:
    try:
        await client.files.delete(path)
    except NotFound:
        return


async def _unsealed_call(story: Story, checks: Checks) -> None:
    """Send a call whose body is not sealed: the site refuses it, and the hub could read it."""
    owner, marker = OWNERS[1], _marker(story, UNSEALED_CONTROL)
    state, reason = await steadily(lambda: _send_plain(story, owner, marker), try_s=30, within_s=60)
    checks.that(
        state not in {"PENDING", "DELIVERED", "COMPLETED"},
        f"an unsealed call is refused by the site: {state} {reason}",
    )
    await _control(
        story, checks, UNSEALED_CONTROL, marker, "control: the unsealed call in the router's store"
    )


async def _send_plain(story: Story, owner: str, marker: Secret) -> tuple[str, str]:
    profile = ProfileStore(story.state).find(SCIENTIST)
    if profile is None:
        raise NotFound(f"{SCIENTIST} has no profile here", reason="PROFILE_UNKNOWN")
    login = node_login(story.state, story.mesh.server)
    async with open_node(profile.folder, story.mesh.server, login=login, clock=story.clock) as node:
        now_ms, device = story.clock.now_ms(), node.keystore.device
        envelope = rpc_pb2.Envelope(
            call_id=uuid7(story.clock, story.random),
            site=owner,
            app="rds",
            endpoint="status",
            sender=device.principal,
            sender_device=device.device_id,
            created_unix_ms=now_ms,
            expires_unix_ms=now_ms + _CALL_LIFE_MS,
            version=1,
            suite=1,
        )
        message = rpc_pb2.Message(envelope=envelope, body=f"{IDENTIFIER}={marker.text}".encode())
        await node.session.rpc.Send(rpc.SendRequest(message=message))

        async def ended() -> Any:
            answer = await node.session.rpc.GetReply(rpc.GetReplyRequest(call_id=envelope.call_id))
            return answer if answer.HasField("reply") else None

        answer = await eventually(ended, within_s=20, what="the site's answer to an unsealed call")
    name = rpc_pb2.CallState.Name(answer.reply.state).removeprefix("CALL_STATE_")
    return name, str(answer.reply.failure_reason)


async def audit(story: Story, checks: Checks) -> None:
    """Step 12: each owner's audit holds, says what happened, and what left."""
    for owner, (verified, entries, traffic) in zip(
        OWNERS, await in_parallel([_account(story, owner) for owner in OWNERS], at_once=2), strict=True
    ):
        root = verified.root.hex() if isinstance(verified.root, bytes) else str(verified.root)
        story.audit[owner] = {
            "entries": int(verified.entries),
            "checkpoints": int(verified.checkpoints),
            "root": root,
        }
        story.bytes_out[owner] = {str(kind): int(count) for kind, count in traffic.items()}
        said = f"{verified.entries} entries, {verified.checkpoints} signed checkpoints, root {root[:16]}..."
        checks.that(verified.entries > 0 and verified.checkpoints > 0, f"{owner}: the chain holds, {said}")
        kinds = [str(entry.kind) for entry in entries]
        wanted = {"job.approved", "job.released"} <= set(kinds)
        checks.that(wanted, f"it says of the analysis: {', '.join(dict.fromkeys(kinds))}")
        sent = sum(story.bytes_out[owner].values())
        checks.that(
            0 < sent < _MOST_OUT_BYTES, f"{sent:,} bytes left {owner}: {_amounts(story.bytes_out[owner])}"
        )
    checks.note(f"state: {story.state}")


_MOST_OUT_BYTES: Final = 32 << 20


def _amounts(by_kind: dict[str, int]) -> str:
    return ", ".join(f"{count:,} as {kind}" for kind, count in sorted(by_kind.items()))


async def _account(story: Story, owner: str) -> tuple[Any, list[Any], dict[str, int]]:
    job_id = story.inquiries[owner].job_id
    verified = await story.ask(owner, lambda client: client.site.audit.verify())
    entries = await story.ask(owner, lambda client: client.site.audit.query(job_id=job_id))
    traffic = await story.ask(owner, lambda client: client.site.traffic())
    return verified, list(entries), dict(traffic)
