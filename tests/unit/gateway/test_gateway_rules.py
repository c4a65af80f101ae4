"""What the gateway lets pass, and what it says."""

from __future__ import annotations

import json

import pytest
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError, PermissionDenied, Unimplemented
from syftmesh_gateway.convert import problem, status_of
from syftmesh_gateway.domain.host import host_rule, is_loopback
from syftmesh_gateway.domain.presigned import object_request
from syftmesh_gateway.domain.status import Addresses, Health, page

QUERY = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=key%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=abc"
)
PATH = "/objects/syftmesh/packs/mfwgsy3f/0011"


def _check(method="GET", path=PATH, query=QUERY, length=None, authorised=False):
    return object_request(method, path, query, length=length, authorised=authorised, max_bytes=100)


def test_a_presigned_request_passes_with_path_and_query_unchanged():
    assert _check().target == f"/syftmesh/packs/mfwgsy3f/0011?{QUERY}"
    assert _check("PUT", length="100").size_bytes == 100
    assert _check(path="/objects/syftmesh/a%3Db/c%40d").target.startswith("/syftmesh/a%3Db/c%40d?")


@pytest.mark.parametrize(
    "path",
    [
        "/objects/",
        "/objects/syftmesh",
        "/objects/syftmesh/",
        "/objects/syftmesh/../other/x",
        "/objects/syftmesh/%2e%2e/other/x",
        "/objects/syftmesh/a%2F..%2Fb",
        "/objects/syftmesh/%252e%252e/x",
        "/objects/syftmesh//x",
        "/objects//syftmesh/x",
        "/objects/syftmesh/a b",
        "/objects/syftmesh/a\r\nb",
        "/objects/syftmesh/.hidden",
        "/objectsx/syftmesh/a",
        "/objects/syftmesh/" + "a" * 5000,
    ],
)
def test_a_path_that_is_no_object_is_refused(path):
    with pytest.raises(InvalidInput) as caught:
        _check(path=path)
    assert caught.value.reason == "OBJECT_KEY_INVALID"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "x",
        "list-type=2",
        QUERY.replace("X-Amz-Signature=abc", ""),
        QUERY + "&uploads=",
        QUERY + "&X-Amz-Signature=other",
        QUERY + "&acl",
        "&".join([QUERY] * 4),
    ],
)
def test_a_request_that_is_not_presigned_is_refused(query):
    with pytest.raises(PermissionDenied) as caught:
        _check(query=query)
    assert caught.value.reason == "PRESIGN_REQUIRED"


def test_two_ways_of_signing_at_once_are_refused():
    with pytest.raises(PermissionDenied):
        _check(authorised=True)


@pytest.mark.parametrize("length", [None, "", "-1", "1e3", "0x10", "²", "9" * 16])
def test_an_upload_says_its_length(length):
    with pytest.raises(InvalidInput) as caught:
        _check("PUT", length=length)
    assert caught.value.reason == "LENGTH_REQUIRED"


def test_an_upload_is_bounded():
    with pytest.raises(LimitExceeded) as caught:
        _check("PUT", length="101")
    assert (caught.value.reason, status_of(caught.value)) == ("OBJECT_TOO_LARGE", 413)


def test_a_download_has_no_body():
    with pytest.raises(InvalidInput):
        _check("GET", length="5")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080", "hub.example"]
)
def test_own_names_are_answered(host):
    host_rule(8080, ["Hub.Example"]).check(host, None)
    host_rule(8080, ["Hub.Example"]).check(host, f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:81",
        "localhost:8080.evil.example",
        "x@localhost:8080",
    ],
)
def test_other_names_are_refused(host):
    with pytest.raises(PermissionDenied) as caught:
        host_rule(8080).check(host, None)
    assert (caught.value.reason, status_of(caught.value)) == ("HOST_REFUSED", 421)


@pytest.mark.parametrize(
    ("name", "host", "is_ours"),
    [
        ("hub.example", "hub.example:8443", True),
        ("hub.example", "hub.example:1", True),
        ("localhost", "localhost:30443", True),
        ("[::1]", "[::1]:30443", True),
        ("hub.example:8443", "hub.example:8443", True),
        ("hub.example:8443", "hub.example", False),
        ("hub.example:8443", "hub.example:8444", False),
        ("hub.example", "hub.example:", False),
        ("hub.example", "hub.example:0", False),
        ("hub.example", "hub.example:65536", False),
        ("hub.example", "hub.example:443:443", False),
        ("hub.example", "hub.example:٤٤٣", False),
        ("hub.example", "a.hub.example:443", False),
        ("hub.example", "hub.example.evil:443", False),
        ("", ":443", False),
    ],
)
def test_a_name_without_a_port_is_answered_at_every_port(name, host, is_ours):
    rule = host_rule(8080, [name])
    if is_ours:
        rule.check(host, f"https://{host}")
        return
    with pytest.raises(PermissionDenied):
        rule.check(host, None)


@pytest.mark.parametrize(
    ("host", "is_tls", "seen"),
    [
        ("hub.example", True, "hub.example:443"),
        ("hub.example", False, "hub.example:80"),
        ("hub.example:8443", True, "hub.example:8443"),
        ("[::1]", True, "[::1]:443"),
        ("[::1]:30443", True, "[::1]:30443"),
    ],
)
def test_a_hub_of_several_names_tells_each_client_its_own(host, is_tls, seen):
    found = Addresses("i", "self", is_tls, "self", "1").seen_at(host)
    assert (found.grpc, found.flower) == (seen, seen)
    fixed = Addresses("i", "grpc.example:1", is_tls, None, "1")
    assert fixed.seen_at(host) == fixed
    assert not fixed.is_behind_proxy


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "https://localhost", "localhost:8080", "file://localhost:8080"],
)
def test_pages_of_others_are_refused(origin):
    with pytest.raises(PermissionDenied) as caught:
        host_rule(8080).check("localhost:8080", origin)
    assert caught.value.reason == "ORIGIN_REFUSED"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("10.0.0.1", False),
        (None, False),
        ("1270.0.0.1", False),
    ],
)
def test_loopback_peers_are_known(peer, expected):
    assert is_loopback(peer) is expected


def test_the_page_escapes_what_it_shows():
    shown = page(Addresses("i", "<b>", False, None, '"><script>'), Health({"<i>sync": False, "crypto": True}))
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "not ready" in shown


def test_health_is_ready_when_all_parts_are():
    assert Health({"a": True, "b": True}).document()["status"] == "serving"
    assert Health({"a": True, "b": False}).document() == {
        "status": "not_serving",
        "parts": {"a": "serving", "b": "not_serving"},
    }


def test_an_error_is_a_problem_with_its_reason():
    answer = problem(Unimplemented("not yet", metadata={"domain": "x"}))
    assert (answer.status_code, answer.media_type) == (501, "application/problem+json")
    body = json.loads(answer.body)
    assert (body["reason"], body["code"], body["detail"]) == ("UNIMPLEMENTED", "UNIMPLEMENTED", "not yet")
    assert status_of(MeshError("x")) == 500
