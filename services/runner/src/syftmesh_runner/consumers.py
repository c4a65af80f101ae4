"""The endpoints of a site's apps, called sealed through the router.

App `rds`: `submit`, `withdraw` and `status`. App `fl`: `propose` and `status`.
"""

from __future__ import annotations

from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from mesh.federated.v1 import proposal_pb2
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1 import content_pb2
from syftmesh_client.incoming import IncomingCall, Transaction, Work
from syftmesh_client.problem import problem_content
from syftmesh_core.errors import InvalidInput, MeshError, NotFound

from syftmesh_runner import convert
from syftmesh_runner.domain.arrival import Arrival, Sender
from syftmesh_runner.domain.decision import Decision
from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.proposal import Proposal
from syftmesh_runner.domain.proposal_arrival import ProposalArrival
from syftmesh_runner.domain.publication import Publication

APP: Final = "rds"
FL_APP: Final = "fl"
CONTENT_TYPE: Final = "application/x-protobuf"
M = TypeVar("M", bound=Message)


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

    idempotent: Final = True
    """Everything a call does is in the transaction of its reply, so one that was cut off may be run again."""

    async def handle(self, request: IncomingCall, tx: Transaction) -> content_pb2.ReplyContent:
        """Answer one call.

        Raises:
            MeshError: What is wrong with it; `syftmesh_core.errors` in the caller's hands.
        """
        self._publication.ask_reseal(request.sender)
        if request.endpoint == "submit":
            return await self._submit(request, tx)
        if request.endpoint not in ("withdraw", "status"):
            raise NotFound("The app rds has no such endpoint.", reason="ENDPOINT_UNKNOWN")
        job_id = _parse(rds_pb2.JobReference(), request.request.body).job_id
        if request.endpoint == "status":
            return _reply(self._decision.party(job_id, request.sender))
        withdraw = partial(self._decision.withdraw, job_id, request.sender)
        return tx.reply_with(lambda: _answered(lambda: _reply(withdraw())))

    async def _submit(self, request: IncomingCall, tx: Transaction) -> content_pb2.ReplyContent:
        message = _parse(rds_pb2.JobSubmission(), request.request.body)
        sender = Sender(request.sender, request.sender_root)
        prepared = await self._arrival.prepare(sender, convert.submission(message))

        def store() -> content_pb2.ReplyContent:
            job = self._arrival.store(prepared)
            return problem_content(prepared.refusal) if prepared.refusal is not None else _reply(job)

        return tx.reply_with(lambda: _answered(store))


class FlEndpoints:
    """Answers calls for the app `fl`.

    Args:
        arrival: Takes proposals.
    """

    def __init__(self, arrival: ProposalArrival) -> None:
        self._arrival = arrival

    idempotent: Final = True
    """As of `RdsEndpoints`."""

    async def handle(self, request: IncomingCall, tx: Transaction) -> content_pb2.ReplyContent:
        """Answer one call.

        Raises:
            MeshError: What is wrong with it; `syftmesh_core.errors` in the caller's hands.
        """
        if request.endpoint == "propose":
            return await self._propose(request, tx)
        if request.endpoint != "status":
            raise NotFound("The app fl has no such endpoint.", reason="ENDPOINT_UNKNOWN")
        run_id = _parse(proposal_pb2.RunReference(), request.request.body).run_id
        return _proposal_reply(self._arrival.status(run_id, request.sender))

    async def _propose(self, request: IncomingCall, tx: Transaction) -> content_pb2.ReplyContent:
        message = _parse(proposal_pb2.RunProposal(), request.request.body)
        sender = Sender(request.sender, request.sender_root)
        prepared = await self._arrival.prepare(sender, convert.run_request(message))
        return tx.reply_with(lambda: _answered(lambda: _proposal_reply(self._arrival.store(prepared))))


def _proposal_reply(proposal: Proposal) -> content_pb2.ReplyContent:
    body = convert.proposal_status(proposal).SerializeToString()
    return content_pb2.ReplyContent(status=200, content_type=CONTENT_TYPE, body=body)


def _answered(work: Work) -> content_pb2.ReplyContent:
    # A refusal is an answer too, and the audit entry about it commits with it.
    try:
        return work()
    except MeshError as error:
        return problem_content(error)


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
