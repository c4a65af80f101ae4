"""Any S3 as `object_store.ObjectStore`: obstore for objects, minio to make the bucket, own pre-signing."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

import obstore
from minio import Minio
from minio.error import MinioException, S3Error
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store
from syftmesh_core.clock import Clock, SystemClock, to_datetime
from syftmesh_core.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from syftmesh_kit.object_store import ObjectInfo, PresignedRequest, check_key, check_presign
from syftmesh_kit.presign import SigningKey, encode_path, presign_query
from syftmesh_kit.settings import S3Settings
from syftmesh_kit.store_trust import is_untrusted, store_context

T = TypeVar("T")
_RETRIES: Final = 3
_SYSTEM_TRUST: Final = "SSL_CERT_FILE"


@dataclass(frozen=True, slots=True)
class S3Config:
    """Where a store is and how its URLs look from outside.

    Attributes:
        endpoint: Base URL the services reach it by, ``http://host:port``.
        access_key: Access key.
        secret_key: Secret key.
        bucket: The one bucket.
        region: Region of the signatures.
        signing_host: Host header that arrives at the store with a pre-signed request; empty: the
            endpoint's. A proxy in between must set it.
        url_base: Base URL of pre-signed requests as clients see it (``https://hub.example/objects``, or the path
            alone, which clients put below the address they reach the hub by); empty: the endpoint. Below it
            stands ``/<bucket>/<key>``.
        timeout_s: Seconds one request may take.
        ca_file: Authorities that the store's certificate must come from; None: those of the system.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = "syftmesh"
    region: str = "us-east-1"
    signing_host: str = ""
    url_base: str = ""
    timeout_s: float = 30.0
    ca_file: Path | None = None

    @classmethod
    def of(cls, settings: S3Settings) -> S3Config:
        """Return what `settings` say."""
        return cls(
            settings.s3_endpoint,
            settings.s3_access_key.get_secret_value(),
            settings.s3_secret_key.get_secret_value(),
            bucket=settings.s3_bucket,
            region=settings.s3_region,
            signing_host=settings.s3_signing_host,
            url_base=settings.s3_url_base,
            ca_file=settings.s3_ca_file,
        )


class S3ObjectStore:
    """See `ObjectStore`. Call `ensure_bucket` once at start."""

    def __init__(self, config: S3Config, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._key = SigningKey(config.access_key, config.secret_key, config.region)
        self._host = config.signing_host or urlsplit(config.endpoint).netloc
        self._base = (config.url_base or config.endpoint).rstrip("/")
        self._store = _store(config)

    async def ensure_bucket(self) -> None:
        """Make the bucket when it is missing.

        Raises:
            Unavailable: The store does not answer or refuses the credentials (OBJECT_STORE_AWAY), or its
                certificate is not from `S3Config.ca_file` (OBJECT_STORE_UNTRUSTED).
        """
        await asyncio.to_thread(self._ensure_bucket)

    async def ready(self) -> None:
        """Return when the store answers a request.

        Raises:
            Unavailable: It does not (OBJECT_STORE_AWAY, OBJECT_STORE_UNTRUSTED).
        """
        await self.head("ready")

    async def put(self, key: str, data: bytes, *, create: bool = True) -> None:
        """See `ObjectStore.put`."""
        mode: Literal["create", "overwrite"] = "create" if create else "overwrite"
        try:
            await obstore.put_async(self._store, check_key(key), data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as error:
            raise AlreadyExists(
                "An object of that name is there already.", reason="OBJECT_EXISTS", metadata={"key": key}
            ) from error
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See `ObjectStore.get`."""
        check_key(key)
        if start < 0 or (end is not None and end <= start):
            raise _bad_range(start, end)
        if end is not None:
            return await self._read(
                obstore.get_range_async(self._store, key, start=start, end=end), key, start, end
            )
        if start:
            return await self._read(self._get_from(key, start), key, start, end)
        return await self._read(self._get_all(key), key, start, end)

    async def head(self, key: str) -> ObjectInfo | None:
        """See `ObjectStore.head`."""
        try:
            found = await obstore.head_async(self._store, check_key(key))
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return _info(dict(found))

    async def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        try:
            await obstore.delete_async(self._store, check_key(key))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        if prefix:
            check_key(prefix.removesuffix("/"))
        stream = obstore.list(self._store, prefix=prefix or None, offset=after or None, chunk_size=1000)
        try:
            async for chunk in stream:
                for found in chunk:
                    yield _info(dict(found))
        except (BaseError, OSError) as error:
            raise _away(error) from error

    def presign_put(self, key: str, *, size_bytes: int, sha256: bytes, ttl_s: int) -> PresignedRequest:
        """See `ObjectStore.presign_put`."""
        check_presign(key, ttl_s, size_bytes=size_bytes, sha256=sha256)
        headers = {
            "content-length": str(size_bytes),
            "if-none-match": "*",
            "x-amz-checksum-sha256": base64.b64encode(sha256).decode(),
        }
        return self._presigned("PUT", key, ttl_s, headers)

    def presign_get(self, key: str, *, ttl_s: int) -> PresignedRequest:
        """See `ObjectStore.presign_get`."""
        check_presign(key, ttl_s)
        return self._presigned("GET", key, ttl_s, {})

    def _presigned(self, method: str, key: str, ttl_s: int, headers: dict[str, str]) -> PresignedRequest:
        path = f"/{self._config.bucket}/{key}"
        now_ms = self._clock.now_ms()
        at = to_datetime(now_ms)
        query = presign_query(
            self._key, method=method, host=self._host, path=path, at=at, ttl_s=ttl_s, headers=headers
        )
        return PresignedRequest(
            method, f"{self._base}{encode_path(path)}?{query}", headers, now_ms + ttl_s * 1000
        )

    async def _get_all(self, key: str) -> bytes:
        return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def _get_from(self, key: str, start: int) -> bytes:
        result = await obstore.get_async(self._store, key, options={"range": {"offset": start}})
        return bytes(await result.bytes_async())

    async def _read(self, reading: Awaitable[T], key: str, start: int, end: int | None) -> bytes:
        try:
            return bytes(await reading)  # type: ignore[call-overload, no-any-return]
        except FileNotFoundError as error:
            raise NotFound(
                "There is no such object.", reason="OBJECT_MISSING", metadata={"key": key}
            ) from error
        except (BaseError, OSError) as error:
            if start or end is not None:
                found = await self.head(key)
                if found is not None and start >= found.size_bytes:
                    raise _bad_range(start, end) from error
            raise _away(error) from error

    def _ensure_bucket(self) -> None:
        parts = urlsplit(self._config.endpoint)
        pool = PoolManager(
            timeout=Timeout(connect=2.0, read=self._config.timeout_s),
            retries=Retry(total=2, backoff_factor=0.1),
            ssl_context=store_context(self._config.ca_file),
        )
        client = Minio(
            endpoint=parts.netloc,
            access_key=self._config.access_key,
            secret_key=self._config.secret_key,
            secure=parts.scheme == "https",
            region=self._config.region,
            http_client=pool,
        )
        try:
            if not client.bucket_exists(bucket_name=self._config.bucket):
                client.make_bucket(bucket_name=self._config.bucket)
        except S3Error as error:
            if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise _away(error) from error
        except (MinioException, HTTPError, OSError) as error:
            raise _away(error) from error
        finally:
            pool.clear()


def _store(config: S3Config) -> S3Store:
    with _trusting(config.ca_file):
        return S3Store(
            config.bucket,
            endpoint=config.endpoint,
            access_key_id=config.access_key,
            secret_access_key=config.secret_key,
            region=config.region,
            virtual_hosted_style_request=False,
            # allow_http follows the endpoint's scheme: a hub's own store is reached inside its network
            # policy.
            client_options={
                "allow_http": config.endpoint.startswith("http://"),
                "timeout": timedelta(seconds=config.timeout_s),
                "connect_timeout": timedelta(seconds=2),
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=config.timeout_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=50),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
            },
        )


@contextmanager
def _trusting(ca_file: Path | None) -> Iterator[None]:
    """Make the client that is built inside the block trust the authorities in `ca_file`, and no others.

    obstore has no option for them: it reads the system's once, when a store is made, and where they lie is this
    variable's to say. Outside of the block it is as it was.
    """
    if ca_file is None:
        yield
        return
    store_context(ca_file)
    before = os.environ.get(_SYSTEM_TRUST)
    os.environ[_SYSTEM_TRUST] = str(ca_file)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SYSTEM_TRUST]
        else:
            os.environ[_SYSTEM_TRUST] = before


def _info(found: dict[str, object]) -> ObjectInfo:
    modified = found["last_modified"]
    time_ms = int(modified.timestamp() * 1000) if hasattr(modified, "timestamp") else 0
    return ObjectInfo(str(found["path"]), int(str(found["size"])), str(found.get("e_tag") or ""), time_ms)


def _away(error: BaseException) -> Unavailable:
    if is_untrusted(error):
        return Unavailable(
            "The certificate of the object store is not from an authority that this service trusts, or does not "
            "bear the store's name. Check the setting S3_CA_FILE and the store's certificate.",
            reason="OBJECT_STORE_UNTRUSTED",
        )
    return Unavailable(
        "The object store does not answer now. Try again in a moment.", reason="OBJECT_STORE_AWAY"
    )


def _bad_range(start: int, end: int | None) -> InvalidInput:
    return InvalidInput(
        f"The range {start} to {'the end' if end is None else end} is not within the object.",
        reason="RANGE_INVALID",
        metadata={"start": str(start), "end": "" if end is None else str(end)},
    )
