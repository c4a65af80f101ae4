"""The endpoints `submit`, `withdraw` and `status` of the app `rds`, called sealed through the router."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1 import content_pb2
from syftmesh_core.errors import InvalidInput, MeshError, NotFound

from syftmesh_runner import convert
from syftmesh_runner.domain.arrival import Arrival, Sender
from syftmesh_runner.domain.decision import Decision
from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.publication import Publication

APP: Final = "rds"
CONTENT_TYPE: Final = "application/x-protobuf"
_HTTP: Final = {
    "INVALID_ARGUMENT": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "ABORTED": 409, "FAILED_PRECONDITION": 412, "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip


M = TypeVar("M", bound=Message)
Work = Callable[[], content_pb2.ReplyContent]


class Call(Protocol):
    """A call whose seal, signature and right were checked (`syftmesh_client.serving.IncomingCall`)."""

    @property
    def sender(self) -> str:
        """The authenticated principal."""
        ...

    @property
    def sender_root(self) -> bytes:
        """The sender's account root, 32 bytes."""
        ...

    @property
    def endpoint(self) -> str:
        """The endpoint's path below the app."""
        ...

    @property
    def request(self) -> content_pb2.RequestContent:
        """What was sent."""
        ...


class RdsEndpoints:
    """Answers calls for the app `rds`.

    Args:
        arrival: Takes submissions.
        decision: Stops jobs.
        publication: Is told of readers who ask, for they may have a new device.
    """

    def __init__(self, arrival: Arrival, decision: Decision, publication: Publication) -> None:
        self._arrival = arrival
        self._decision = decision
        self._publication = publication

    async def handle(
        self, call: Call, commit: Callable[[Work], content_pb2.ReplyContent]
    ) -> content_pb2.ReplyContent:
        """Answer one call.

        Args:
            call: The call.
            commit: Runs what it is given inside the transaction that also stores the reply.
        """
        self._publication.ask_reseal(call.sender)
        try:
            if call.endpoint == "submit":
                return await self._submit(call, commit)
            reference = _parse(rds_pb2.JobReference(), call.request.body)
            if call.endpoint == "withdraw":
                withdraw = partial(self._decision.withdraw, reference.job_id, call.sender)
                return commit(lambda: self._answered(lambda: _reply(withdraw())))
            if call.endpoint == "status":
                return _reply(self._decision.party(reference.job_id, call.sender))
        except MeshError as error:
            return problem(error)
        return problem(NotFound("The app rds has no such endpoint.", reason="ENDPOINT_UNKNOWN"))

    async def _submit(
        self, call: Call, commit: Callable[[Work], content_pb2.ReplyContent]
    ) -> content_pb2.ReplyContent:
        message = _parse(rds_pb2.JobSubmission(), call.request.body)
        sender = Sender(call.sender, call.sender_root)
        prepared = await self._arrival.prepare(sender, convert.submission(message))

        def store() -> content_pb2.ReplyContent:
            job = self._arrival.store(prepared)
            return problem(prepared.refusal) if prepared.refusal is not None else _reply(job)

        return commit(lambda: self._answered(store))

    @staticmethod
    def _answered(work: Work) -> content_pb2.ReplyContent:
        # A refusal is an answer too, and the audit entry about it commits with it.
        try:
            return work()
        except MeshError as error:
            return problem(error)


def problem(error: MeshError) -> content_pb2.ReplyContent:
    """Return the reply that carries an error (RFC 9457, with our members)."""
    document = {
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "hint": error.hint,
    }
    return content_pb2.ReplyContent(
        status=_HTTP.get(error.code, 500),
        content_type="application/problem+json",
        body=json.dumps(document, sort_keys=True).encode(),
    )


def _reply(job: Job) -> content_pb2.ReplyContent:
    body = convert.status_message(job).SerializeToString()
    return content_pb2.ReplyContent(status=200, content_type=CONTENT_TYPE, body=body)


def _parse(message: M, body: bytes) -> M:
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise InvalidInput(
            "The body is not the message of this endpoint.", reason="MESSAGE_MALFORMED"
        ) from None
    return message
