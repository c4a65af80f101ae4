"""Atomic batch publish (NATS ADR-50, server 2.12): nats-py 2.16 knows its headers but does not offer it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence

from nats.aio.client import Client
from nats.js.api import Header
from nats.js.errors import APIError

from syftmesh_kit.message import Outgoing, PublishAck, type_headers


async def send_batch(
    client: Client, batch: Sequence[Outgoing], extra: Mapping[str, str], traceparent: str, timeout_s: float
) -> PublishAck:
    """Send `batch` as one atomic batch and return the acknowledgement of its commit.

    The first message is a request, so that a stream that takes no batches says so before the rest is sent;
    the last one carries the commit. A batch that stays without commit is dropped by the server after 10 s.

    Raises:
        APIError: The server refused the batch; nothing of it is stored.
    """
    batch_id = secrets.token_hex(16)
    async with asyncio.timeout(timeout_s):
        last = len(batch)
        for number, message in enumerate(batch, start=1):
            headers = {**message.headers, **extra, **type_headers(message.payload, traceparent)}
            headers[Header.BATCH_ID.value] = batch_id
            headers[Header.BATCH_SEQUENCE.value] = str(number)
            if message.expected_last is not None:
                headers[Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value] = str(message.expected_last)
            payload = message.payload.SerializeToString()
            if number == last:
                headers[Header.BATCH_COMMIT.value] = "1"
                answer = await client.request(message.subject, payload, timeout=timeout_s, headers=headers)
                return _acknowledged(answer.data)
            if number == 1:
                answer = await client.request(message.subject, payload, timeout=timeout_s, headers=headers)
                if answer.data:
                    _acknowledged(answer.data)
            else:
                await client.publish(message.subject, payload, headers=headers)
    raise AssertionError("a batch is never empty")


def _acknowledged(raw: bytes) -> PublishAck:
    answer = json.loads(raw)
    if "error" in answer:
        raise APIError.from_error(answer["error"])
    return PublishAck(answer["stream"], answer["seq"])
