"""Serves the Grid of one ServerApp: opens and seals, follows the phases, counts who answered.

The ServerApp sees plain records and node numbers; the SuperLink sees ciphertext. In between is this desk, which
holds the keys of the run and talks to the hub's runtime routes with the run's task token.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import httpx
import structlog
from flwr.app import Message, Metadata
from flwr.app.message import make_message
from mesh.federated.v1 import federated_pb2 as pb
from syftmesh_core.errors import MeshError

from syftmesh_flower.envelope import (
    InnerHeader,
    open_message,
    pack_plain,
    sealed_contents,
    sealed_parts,
    unreadable,
)
from syftmesh_flower.seal import TO_AGGREGATOR, TO_SITE, RunKey, seal_content
from syftmesh_flower.transfer import AGGREGATOR_NODE, RuntimeLink

OPEN_ERROR_CODE: Final = 201
"""Code of the error that a ServerApp gets for an answer that does not open."""

_AWAY_S: Final = 120.0
_PAUSE_S: Final = 0.5
_POLL_S: Final = 0.1
_KINDS: Final = ("train", "evaluate", "query")

T = TypeVar("T")
_log: Any = structlog.get_logger("syftmesh.flower.grid")


class RunAborted(Exception):
    """The run must not go on.

    Args:
        reason: UPPER_SNAKE constant.
        message: For people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class Phase:
    """Messages that went out together, and what came back; more of one that is `open` may follow one by one."""

    kind: str
    round: int
    started_ms: int
    open: bool = False
    waiting: dict[str, str] = field(default_factory=dict)
    replies: dict[str, pb.SiteReply] = field(default_factory=dict)

    def report(self, ended_ms: int) -> pb.RoundReport:
        """Return the report of the phase; who has not answered is named."""
        replies = dict(self.replies)
        for site in self.waiting.values():
            replies.setdefault(site, pb.SiteReply(site=site, ok=False, reason="NO_ANSWER"))
        return pb.RoundReport(
            round=self.round,
            phase=self.kind,
            replies=[replies[site] for site in sorted(replies)],
            started_unix_ms=self.started_ms,
            ended_unix_ms=ended_ms,
        )


class GridDesk:
    """The aggregator's side of a ServerApp's Grid.

    Args:
        link: The run's task at the hub.
        run_id: The run.
        keys: Keys by site.
        nodes: Gives the sites' nodes now, node to site, in the order of partitions.
        minimum_sites: Fewest good answers to a training phase.
        now_ms: Unix milliseconds.
        report: Takes the report of a phase that is over.
        off: Runs blocking work in a thread.
    """

    def __init__(
        self,
        link: RuntimeLink,
        run_id: str,
        keys: Mapping[str, RunKey],
        nodes: Callable[[], Mapping[int, str]],
        *,
        minimum_sites: int,
        now_ms: Callable[[], int],
        report: Callable[[pb.RoundReport], Awaitable[None]],
        off: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._link = link
        self._run_id = run_id
        self._keys = keys
        self._nodes = nodes
        self._minimum_sites = minimum_sites
        self._now_ms = now_ms
        self._report = report
        self._off = off
        self._phase: Phase | None = None
        self._heads: dict[str, dict[str, Any]] = {}
        self._round = 0

    async def nodes(self) -> list[bytes]:
        """Answer NODES: the nodes of approved sites that are there."""
        there = set(await self._hub(self._link.nodes))
        return [json.dumps([node for node in self._nodes() if node in there]).encode()]

    async def push(self, parts: list[bytes]) -> list[bytes]:
        """Answer PUSH: seal and send, and return the ids.

        Raises:
            RunAborted: The phase before had too few good answers.
        """
        heads: list[dict[str, Any]] = json.loads(parts[0])
        phase = await self._phase_of(heads[0])
        sites = dict(self._nodes())
        messages = await self._off(lambda: self._sealed(heads, parts[1:], sites))
        ids: list[str] = await self._hub(lambda: self._link.push(messages))
        for message_id, message in zip(ids, messages, strict=True):
            node = message.metadata.dst_node_id
            phase.waiting[message_id] = sites[node]
            self._heads[message_id] = {"site": sites[node], "node": node}
        return [json.dumps(ids).encode()]

    async def pull(self, parts: list[bytes]) -> list[bytes]:
        """Answer PULL: the replies that are there, opened; waits as long as it is asked to."""
        question = json.loads(parts[0])
        wanted = [message_id for message_id in question["ids"] if message_id in self._heads]
        end = time.monotonic() + float(question["wait_s"])
        while True:
            came: list[Message] = await self._hub(lambda: self._link.pull(wanted)) if wanted else []
            if came or time.monotonic() >= end:
                break
            await asyncio.sleep(_POLL_S)
        heads: list[dict[str, Any]] = []
        contents: list[bytes] = []
        for message in came:
            head, content = await self._off(partial(self._opened, message))
            if content is not None:
                head["content"] = len(contents)
                contents.append(content)
            heads.append(head)
        if self._phase is not None and came and not self._phase.waiting and not self._phase.open:
            await self.close_phase()
        return [json.dumps(heads).encode(), *contents]

    async def close_phase(self) -> None:
        """Report the phase that is under way, if any.

        Raises:
            RunAborted: TOO_FEW_SITES: a training phase had fewer good answers than the run needs.
        """
        phase, self._phase = self._phase, None
        if phase is None:
            return
        report = phase.report(self._now_ms())
        await self._report(report)
        good = sum(reply.ok for reply in report.replies)
        if phase.kind == "train" and good < self._minimum_sites:
            why = ", ".join(f"{reply.site}: {reply.reason}" for reply in report.replies if not reply.ok)
            raise RunAborted(
                "TOO_FEW_SITES" if good else "NO_RESULTS",
                f"Round {report.round}: {good} of at least {self._minimum_sites} sites gave an update ({why}).",
            )

    async def _phase_of(self, head: Mapping[str, Any]) -> Phase:
        """Return the phase under way if a message belongs to it, else a new one, after the report of that."""
        kind, asked = str(head["type"]).partition(".")[0], int(head.get("round") or 0)
        kind = kind if kind in _KINDS else "query"
        joins, phase = bool(head.get("joins")), self._phase
        if joins and phase is not None and phase.open and (phase.kind, phase.round) == (kind, asked):
            return phase
        await self.close_phase()
        if kind == "train":
            self._round += 1
        # Without a number nothing could say that a later message is of another round.
        phase = Phase(kind, asked or max(self._round, 1), self._now_ms(), open=joins and asked > 0)
        self._phase = phase
        return phase

    def _sealed(
        self, heads: list[dict[str, Any]], contents: list[bytes], sites: Mapping[int, str]
    ) -> list[Message]:
        groups: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
        for head in heads:
            groups.setdefault((head["content"], head["type"], head["group"]), []).append(head)
        messages = []
        for (content, message_type, group), members in groups.items():
            keys = {}
            for head in members:
                site = sites.get(head["node"])
                if site is None or site not in self._keys:
                    raise RunAborted(
                        "NODE_UNKNOWN", f"The app sends to node {head['node']}, which is no site."
                    )
                keys[site] = self._keys[site]
            header = InnerHeader(message_type, group, time.time_ns())
            sealed = seal_content(
                pack_plain(header, contents[content]),
                keys,
                run_id=self._run_id,
                direction=TO_SITE,
                context=b"",
            )
            shared = sealed_contents(sealed.ciphertext, sealed.wraps)
            for head in members:
                metadata = Metadata(
                    run_id=int(self._run_id),
                    message_id="",
                    src_node_id=AGGREGATOR_NODE,
                    dst_node_id=head["node"],
                    reply_to_message_id="",
                    group_id=group,
                    created_at=time.time(),
                    ttl=float(head["ttl"]),
                    message_type=message_type,
                )
                messages.append(make_message(metadata=metadata, content=shared[sites[head["node"]]]))
        return messages

    def _opened(self, message: Message) -> tuple[dict[str, Any], bytes | None]:
        metadata = message.metadata
        asked = self._heads.pop(metadata.reply_to_message_id, {"site": "", "node": metadata.src_node_id})
        site = str(asked["site"])
        head: dict[str, Any] = {
            "id": metadata.message_id,
            "node": asked["node"],
            "reply_to": metadata.reply_to_message_id,
            "group": metadata.group_id,
            "type": metadata.message_type,
            "ttl": metadata.ttl,
        }
        reason, size, content = "", 0, None
        if message.has_error():
            reason = _constant(message.error.reason or "")
            head |= {"code": message.error.code, "reason": reason}
        else:
            try:
                size, content = self._content(message, site)
            except MeshError as error:
                reason = error.reason
                head |= {"code": OPEN_ERROR_CODE, "reason": reason}
        self._count(metadata.reply_to_message_id, site, reason, size)
        return head, content

    def _content(self, message: Message, site: str) -> tuple[int, bytes]:
        ciphertext, _ = sealed_parts(message.content)
        if site not in self._keys:
            raise unreadable()
        _, content = open_message(
            message,
            self._keys[site],
            run_id=self._run_id,
            direction=TO_AGGREGATOR,
            site=site,
            context=message.metadata.reply_to_message_id.encode(),
        )
        return len(ciphertext), content

    def _count(self, message_id: str, site: str, reason: str, size: int) -> None:
        phase = self._phase
        if phase is None or phase.waiting.pop(message_id, None) is None:
            return
        phase.replies[site] = pb.SiteReply(site=site, ok=not reason, reason=reason, received_bytes=size)

    async def _hub(self, work: Callable[[], T]) -> T:
        """Do blocking work at the hub; a hub that is away for less than two minutes is waited for.

        Raises:
            RunAborted: SUPERLINK_AWAY, or TASK_LOST when the hub does not know the task any more.
        """
        end = time.monotonic() + _AWAY_S
        while True:
            try:
                result: T = await self._off(work)
                return result
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status < 500 and status not in (408, 429):
                    _log.warning("flower.hub_refused", status=status, path=error.request.url.path)
                    raise RunAborted(
                        "TASK_LOST", f"The hub does not take the run's messages any more (HTTP {status})."
                    ) from error
            except httpx.TransportError as error:
                _log.info("flower.hub_away", kind=type(error).__name__)
            if time.monotonic() > end:
                raise RunAborted("SUPERLINK_AWAY", "The hub did not come back within two minutes.")
            await asyncio.sleep(_PAUSE_S)


_FLOWER_REASONS: Final = (
    ("unavailable", "NODE_UNAVAILABLE"),
    ("expired", "MESSAGE_EXPIRED"),
)


def _constant(reason: str) -> str:
    """Return a constant for the reason of an error reply, which the hub may have written."""
    if reason.isascii() and reason.replace("_", "").isalnum() and reason.isupper() and len(reason) <= 64:
        return reason
    lower = reason.lower()
    return next((word for text, word in _FLOWER_REASONS if text in lower), "ERROR_REPLY")
