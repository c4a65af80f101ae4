"""What the product relies on in an object store, as checks that each say what did not hold."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_kit.object_store import ObjectStore

from syftmesh_cluster.store_request import TTL_S, Answer, StoreRequests

_MAX_SKEW_S: Final = 300
_RACERS: Final = 8
_CREATE: Final = {"if-none-match": "*"}


class PromiseBroken(Exception):
    """A check did not hold; the text says what was seen."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One check: its name, what depends on it, and the check, which raises `PromiseBroken`."""

    name: str
    why: str
    check: Callable[[], Awaitable[None]]


class StorePromises:
    """The checks; each works on objects of its own below `prefix`.

    Args:
        store: The store through the product's own client.
        requests: The same store, request by request.
        clock: Wall time.
        prefix: Where objects are written, ends with ``/``.
    """

    def __init__(self, store: ObjectStore, requests: StoreRequests, clock: Clock, prefix: str) -> None:
        self._store = store
        self._requests = requests
        self._clock = clock
        self._prefix = prefix

    def all(self) -> list[Promise]:
        """Return every check, in the order in which they are told."""
        return [
            Promise("clock", "pre-signed requests live a minute", self._clock_agrees),
            Promise("read-after-write", "what is acknowledged is read at once", self._read_after_write),
            Promise("conditional-create", "no object is written twice", self._conditional_create),
            Promise("create-race", "of several writers one wins", self._create_race),
            Promise("compare-and-swap", "an object is replaced by who read it last", self._compare_and_swap),
            Promise("ranged-reads", "parts of packs are read", self._ranged_reads),
            Promise("listing", "journals are found again", self._listing),
            Promise("delete", "what was removed is gone", self._delete),
            Promise("presigned-put", "clients write what they announced", self._presigned_put),
            Promise("presigned-expiry", "a right to read or write ends", self._presigned_expiry),
            Promise("unsigned-refused", "nobody reads or writes without a right", self._unsigned_refused),
        ]

    async def clean(self) -> None:
        """Delete what the checks wrote; raises as `ObjectStore.delete`."""
        for key in [info.key async for info in self._store.list(self._prefix)]:
            await self._store.delete(key)

    async def _clock_agrees(self) -> None:
        answer = await self._requests.ask("GET", self._key("clock"))
        stated = answer.headers.get("date", "")
        try:
            skew_s = abs(parsedate_to_datetime(stated).timestamp() - self._clock.now_ms() / 1000)
        except ValueError:
            raise PromiseBroken("its answers bear no Date") from None
        if skew_s > _MAX_SKEW_S:
            raise PromiseBroken(f"its clock and ours differ by {skew_s:.0f} s, allowed are {_MAX_SKEW_S}")

    async def _read_after_write(self) -> None:
        key, body = self._key("read"), _body("read")
        for data in (body, body[::-1]):
            await self._store.put(key, data, create=False)
            _hold(await self._store.get(key) == data, "a read gave other bytes than were just written")
            found = await self._store.head(key)
            _hold(found is not None and found.size_bytes == len(data), "HEAD did not give the object's size")

    async def _conditional_create(self) -> None:
        key, body = self._key("create"), _body("create")
        _status(await self._requests.ask("PUT", key, body=body, signed=_CREATE), 200, "the first PUT")
        again = await self._requests.ask("PUT", key, body=body[::-1], signed=_CREATE)
        _status(again, 412, "a second PUT with If-None-Match: *")
        _hold(await self._store.get(key) == body, "the refused PUT changed the object")

    async def _create_race(self) -> None:
        key = self._key("race")
        bodies = [_body(f"racer {number}") for number in range(_RACERS)]
        answers = await asyncio.gather(
            *(self._requests.ask("PUT", key, body=body, signed=_CREATE) for body in bodies)
        )
        won = [number for number, answer in enumerate(answers) if answer.status == 200]
        _hold(len(won) == 1, f"{len(won)} of {_RACERS} PUTs with If-None-Match: * at once were accepted")
        for answer in answers:
            if answer.status != 200:
                _status(answer, (412, 409), "a PUT that lost the race")
        _hold(await self._store.get(key) == bodies[won[0]], "the object is not that of the PUT that won")

    async def _compare_and_swap(self) -> None:
        key = self._key("swap")
        first = await self._requests.ask("PUT", key, body=_body("one"))
        _status(first, 200, "a PUT")
        etag = first.headers.get("etag", "")
        _hold(bool(etag), "the answer to a PUT bears no ETag")
        swapped = await self._requests.ask("PUT", key, body=_body("two"), signed={"if-match": etag})
        _status(swapped, 200, "a PUT with the present ETag in If-Match")
        stale = await self._requests.ask("PUT", key, body=_body("three"), signed={"if-match": etag})
        _status(stale, 412, "a PUT with a stale ETag in If-Match")
        _hold(await self._store.get(key) == _body("two"), "the refused PUT changed the object")

    async def _ranged_reads(self) -> None:
        key, body = self._key("range"), _body("range")
        await self._store.put(key, body)
        for text, wanted in (("3-39", body[3:40]), ("1000-", body[1000:]), ("-10", body[-10:])):
            answer = await self._requests.ask("GET", key, sent={"range": f"bytes={text}"})
            _status(answer, 206, f"a GET with Range: bytes={text}")
            _hold(answer.body == wanted, f"a GET with Range: bytes={text} gave other bytes")
        behind = await self._requests.ask("GET", key, sent={"range": f"bytes={len(body)}-"})
        _status(behind, 416, "a GET with a range behind the object")

    async def _listing(self) -> None:
        keys = [self._key(f"list/{number:02}") for number in range(5)]
        for key in reversed(keys):
            await self._store.put(key, b"x")
        folder = self._key("list/")
        found = [info.key async for info in self._store.list(folder)]
        _hold(found == keys, "a listing did not give what was just written, in the order of keys")
        later = [info.key async for info in self._store.list(folder, after=keys[2])]
        _hold(later == keys[3:], "a listing behind a key gave other keys")

    async def _delete(self) -> None:
        key = self._key("delete")
        await self._store.put(key, b"x")
        await self._store.delete(key)
        _status(await self._requests.ask("GET", key), 404, "a GET of a deleted object")
        found = [info.key async for info in self._store.list(self._prefix)]
        _hold(key not in found, "a listing names a deleted object")
        _status(await self._requests.ask("PUT", key, body=b"y", signed=_CREATE), 200, "a new PUT of its name")

    async def _presigned_put(self) -> None:
        key, body = self._key("presigned"), _body("presigned")
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        bound = {"content-length": str(len(body)), **_CREATE, "x-amz-checksum-sha256": digest}

        async def put(data: bytes, sent: dict[str, str]) -> Answer:
            sent = {name: value for name, value in sent.items() if name != "content-length"}
            return await self._requests.ask("PUT", key, body=data, signed=bound, sent=sent)

        refused = (400, 403)
        _status(await put(body + b"x", bound), refused, "a pre-signed PUT of another length")
        _status(await put(body[::-1], bound), refused, "a pre-signed PUT of bytes with another SHA-256")
        for missing in ("if-none-match", "x-amz-checksum-sha256"):
            rest = {name: value for name, value in bound.items() if name != missing}
            _status(await put(body, rest), refused, f"a pre-signed PUT without its header {missing}")
        _hold(await self._store.head(key) is None, "a refused PUT left an object")
        _status(await put(body, bound), 200, "a pre-signed PUT as it was announced")
        _status(await put(body, bound), 412, "the same pre-signed PUT again")

    async def _presigned_expiry(self) -> None:
        key = self._key("expiry")
        await self._store.put(key, b"x")
        age_s = 2 * TTL_S + _MAX_SKEW_S
        _status(await self._requests.ask("GET", key), 200, "a pre-signed GET")
        _status(
            await self._requests.ask("GET", key, age_s=age_s), (400, 403), "a pre-signed GET that has ended"
        )
        ended = await self._requests.ask("PUT", key, body=b"y", age_s=age_s)
        _status(ended, (400, 403), "a pre-signed PUT that has ended")

    async def _unsigned_refused(self) -> None:
        key = self._key("unsigned")
        await self._store.put(key, b"x")
        _status(await self._requests.unsigned("GET", key), (401, 403), "a GET without a signature")
        _status(await self._requests.unsigned("PUT", key, b"y"), (401, 403), "a PUT without a signature")

    def _key(self, name: str) -> str:
        return self._prefix + name


def _body(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest() * 64


def _hold(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as the condition it is
    if not holds:
        raise PromiseBroken(otherwise)


def _status(answer: Answer, wanted: int | tuple[int, ...], what: str) -> None:
    allowed = (wanted,) if isinstance(wanted, int) else wanted
    if answer.status not in allowed:
        names = " or ".join(map(str, allowed))
        raise PromiseBroken(f"{what} was answered {answer.status}, not {names}")
