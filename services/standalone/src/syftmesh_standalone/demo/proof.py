"""Steps 11 and 12: nothing private is at the hub, and the owners can prove what happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mesh.rpc.v1 import rpc_pb2
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from syftmesh_client.node import Node, open_node
from syftmesh_client.profile import Profile, ProfileStore, node_login
from syftmesh_core.clock import uuid7
from syftmesh_core.errors import NotFound
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo.canary.hub import OBJECTS
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
UPDATE_CONTROL: Final = "unsealed update"
NOT_SEALED: Final = "UPDATE_NOT_SEALED"
SUPERLINK: Final = "superlink"
SEAL_INVALID: Final = "SEAL_INVALID"
_HUB_PARTS: Final = (OBJECTS, "nats", "s3")
_SCAN_S: Final = 120.0
_CALL_LIFE_MS: Final = 120_000
_MARKED_ROWS: Final = 40
_MOST_OUT_BYTES: Final = 32 << 20


async def canary(story: Story, checks: Checks) -> None:
    """Step 11: everything the hub holds is searched, and the search is shown to see."""
    await _nothing_private(story, checks, _HUB_PARTS)
    await _public_copy(story, checks)
    await _unsealed_call(story, checks)


async def everything(story: Story, checks: Checks) -> None:
    """Steps 11 and 12 once more, over all that has happened: Flower's SuperLink is part of the hub by now."""
    await _nothing_private(story, checks, (*_HUB_PARTS, SUPERLINK))
    await _unsealed_update(story, checks)
    await audit(story, checks)


async def _nothing_private(story: Story, checks: Checks, parts: Sequence[str]) -> None:
    secrets = [secret for table in story.tables.values() for secret in table.secrets()]
    report = story.scan = await _scan(story, secrets)
    where = ", ".join(f"{count} in {part}" for part, count in sorted(report.places.items()))
    checks.note(
        f"{report.scanned_bytes:,} bytes of the hub, {report.unpacked_bytes:,} unpacked from them ({where})"
    )
    missing = [*report.unreadable[:3], *(part for part in parts if not report.places.get(part))]
    checks.that(
        not missing,
        f"all of it was read; {len(report.damaged)} compressed members broke off",
        otherwise=f"part of the hub could not be read: {', '.join(missing)}",
        reason=INCOMPLETE,
    )
    first = next((f"{f.what} is at the hub, as {f.form}, in {f.place}" for f in report.findings), "")
    checks.that(
        report.found == 0,
        f"none of {len(secrets)} private identifiers and rows is in it, in no form looked for",
        otherwise=first,
        reason=FOUND,
    )


async def _scan(story: Story, secrets: list[Secret]) -> ScanReport:
    scan = CanaryScan(secrets)
    return await steadily(lambda: story.venue.scan(scan), within_s=_SCAN_S, try_s=_SCAN_S)


def _marker(story: Story, name: str) -> Secret:
    return Secret(f"marker of the control {name!r}", story.random(RAW_BYTES).hex())


async def _control(
    story: Story, checks: Checks, name: str, marker: Secret, what: str, *, parts: Sequence[str]
) -> None:
    """Scan for a marker that is there; every one of `parts` must show it, or their readers are blind."""
    report = await _scan(story, [marker])
    story.controls[name] = report.found
    seen = {finding.place.split("/")[0] for finding in report.findings}
    blind = [part for part in parts if part not in seen]
    checks.that(
        not blind,
        f"{what}: the scan finds it, {report.found} times, in {' and '.join(sorted(seen))}",
        otherwise=f"the control {name!r} put a marker at the hub, and the scan did not see it in {', '.join(blind)}",
        reason=BLIND,
    )


async def _public_copy(story: Story, checks: Checks) -> None:
    """Let an owner do what must not be done, with a marker: copy a table to where everybody reads."""
    owner, marker = OWNERS[0], _marker(story, PUBLIC_CONTROL)
    path = f"{owner}/public/control.csv"
    rows = "".join(f"{marker.text},{number}\n" for number in range(_MARKED_ROWS))
    data = f"{IDENTIFIER},value\n{rows}".encode()
    await story.ask(owner, lambda client: client.files.write(path, data))
    try:
        await _control(
            story,
            checks,
            PUBLIC_CONTROL,
            marker,
            "control: a table copied to public/ by its owner",
            parts=(OBJECTS, "s3"),
        )
    finally:
        await story.ask(owner, lambda client: _delete(client, path))


async def _delete(client: Any, path: str) -> None:
    try:
        await client.files.delete(path)
    except NotFound:
        return


async def _unsealed_call(story: Story, checks: Checks) -> None:
    """Send a call whose body is not sealed: a site refuses it, but the hub that stores it could read it.

    The router erases a call that is settled, so the one that the scan must see goes to a datasite that
    nobody serves: it waits.
    """
    marker = _marker(story, UNSEALED_CONTROL)
    profile = _profile(story)

    async def send() -> str:
        login = node_login(story.state, story.venue.server)
        async with open_node(profile.folder, story.venue.server, login=login, clock=story.clock) as node:
            refused = await _refusal(node, await _send_plain(node, OWNERS[1], marker))
            # A datasite is there from its first file on.
            await node.files.write(f"{SCIENTIST}/drafts/control.txt", b"a datasite that nobody serves")
            await _send_plain(node, SCIENTIST, marker)
            return refused

    refused = await steadily(send, try_s=30, within_s=60)
    checks.that(refused == SEAL_INVALID, f"an unsealed call is refused by {OWNERS[1]}: {refused}")
    await _control(
        story,
        checks,
        UNSEALED_CONTROL,
        marker,
        "control: an unsealed call that waits in the router",
        parts=("nats",),
    )


async def _unsealed_update(story: Story, checks: Checks) -> None:
    """Let an app's answer reach Flower's SuperLink unsealed: the identifiers of the records, as bytes."""
    from syftmesh_standalone.demo.unsealed_update import cancel, send_unsealed

    marker = _marker(story, UPDATE_CONTROL)
    profile = _profile(story)
    rows = "".join(f"{marker.text},{number}\n" for number in range(_MARKED_ROWS))
    table = f"{IDENTIFIER},value\n{rows}".encode()
    login = node_login(story.state, story.venue.server)

    async def send() -> tuple[str, str]:
        async with open_node(profile.folder, story.venue.server, login=login, clock=story.clock) as node:
            return await send_unsealed(node, story.venue.server, table)

    run_id, refused = await steadily(send, try_s=60, within_s=120, also=("CHECK_FAILED",))
    checks.that(refused == NOT_SEALED, f"an unsealed update is refused by the aggregator: {refused}")
    try:
        await _control(
            story,
            checks,
            UPDATE_CONTROL,
            marker,
            "control: an app's answer with record_id bytes, unsealed, in Flower's SuperLink",
            parts=(SUPERLINK,),
        )
    finally:
        async with open_node(profile.folder, story.venue.server, login=login, clock=story.clock) as node:
            await cancel(node, run_id)


def _profile(story: Story) -> Profile:
    profile = ProfileStore(story.state).find(SCIENTIST)
    if profile is None:
        raise NotFound(f"{SCIENTIST} has no profile here", reason="PROFILE_UNKNOWN")
    return profile


async def _send_plain(node: Node, site: str, marker: Secret) -> str:
    """Store a call with a readable body and return its id."""
    now_ms, device = node.clock.now_ms(), node.keystore.device
    envelope = rpc_pb2.Envelope(
        call_id=uuid7(node.clock, node.random),
        site=site,
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
    return envelope.call_id


async def _refusal(node: Node, call_id: str) -> str:
    async def ended() -> Any:
        answer = await node.session.rpc.GetReply(rpc.GetReplyRequest(call_id=call_id))
        return answer if answer.HasField("reply") else None

    answer = await eventually(ended, within_s=20, what="the site's answer to an unsealed call")
    return str(answer.reply.failure_reason) or "it was taken"


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
        kinds = list(dict.fromkeys(str(entry.kind) for entry in entries))
        jobs = [kind for kind in kinds if kind.startswith("job.")]
        wanted = {"job.approved", "job.released"} <= set(jobs)
        checks.that(wanted, f"it says of the analysis: {', '.join(jobs)}")
        if story.training.rounds:
            runs = [kind for kind in kinds if kind.startswith("federated.")]
            wanted = {"federated.approved", "federated.task"} <= set(runs)
            checks.that(wanted, f"and of the training: {', '.join(runs)}")
        sent = sum(story.bytes_out[owner].values())
        checks.that(
            0 < sent < _MOST_OUT_BYTES, f"{sent:,} bytes left {owner}: {_amounts(story.bytes_out[owner])}"
        )
    checks.note(f"state: {story.state}")


def _amounts(by_kind: dict[str, int]) -> str:
    return ", ".join(f"{count:,} as {kind}" for kind, count in sorted(by_kind.items()))


async def _account(story: Story, owner: str) -> tuple[Any, list[Any], dict[str, int]]:
    job_id = story.inquiries[owner].job_id
    verified = await story.ask(owner, lambda client: client.site.audit.verify())
    entries = list(await story.ask(owner, lambda client: client.site.audit.query(job_id=job_id)))
    trained = await story.ask(owner, lambda client: client.site.audit.query())
    entries += [entry for entry in trained if str(entry.kind).startswith("federated.")]
    traffic = await story.ask(owner, lambda client: client.site.traffic())
    return verified, list(entries), dict(traffic)
