from __future__ import annotations

from datetime import UTC, datetime

from syftmesh_kit.presign import SigningKey, encode_path, presign_query
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.testing import FakeClock


def test_published_get_example_of_aws() -> None:
    """AWS, Authenticating Requests: Using Query Parameters (AWS Signature Version 4), its one example."""
    query = presign_query(
        SigningKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        method="GET",
        host="examplebucket.s3.amazonaws.com",
        path="/test.txt",
        at=datetime(2013, 5, 24, tzinfo=UTC),
        ttl_s=86400,
    )
    assert query == (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_every_bound_header_is_part_of_the_signature() -> None:
    store = S3ObjectStore(S3Config("http://127.0.0.1:9", "key", "secret"), FakeClock())
    request = store.presign_put("packs/a", size_bytes=3, sha256=bytes(32), ttl_s=60)
    assert "X-Amz-SignedHeaders=content-length%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256&" in request.url
    assert request.headers["if-none-match"] == "*"
    assert request.expires_at_ms == FakeClock().now_ms() + 60_000
    other = store.presign_put("packs/a", size_bytes=4, sha256=bytes(32), ttl_s=60)
    assert other.url != request.url


def test_paths_are_encoded_once_and_slashes_stay() -> None:
    assert encode_path("/b/a@x.org/c=1~d") == "/b/a%40x.org/c%3D1~d"
