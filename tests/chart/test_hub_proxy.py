"""What nginx lets through to the parts of the hub, as its configuration is rendered."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from chart_render import CHARTS, Chart, Program, named
from syftmesh_core.errors import MeshError
from syftmesh_gateway.domain.presigned import object_request

FOLDER = CHARTS / "syftmesh"
SIGNED = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2F20261124%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20261124T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00ff"
)
KEY = "/objects/syftmesh/packs/alice%40example.org/00ff.pack"


@pytest.fixture(scope="module")
def config(helm: Program) -> str:
    text = named(Chart(helm, FOLDER).render(FOLDER / "values-dev.yaml"), "ConfigMap", "mesh-gateway")["data"]
    return str(text["nginx.conf"])


def _location(config: str, head: str) -> str:
    start = config.index(f"location {head}")
    return config[start : config.index("\n    }\n", start)]


def test_what_is_behind_is_verified_and_shown_a_certificate(config: str) -> None:
    for kind in ("grpc", "proxy"):
        assert f"{kind}_ssl_verify on;" in config
        assert f"{kind}_ssl_certificate $own_certificate.crt;" in config
        assert f"{kind}_ssl_trusted_certificate /etc/syftmesh/tls/ca.crt;" in config
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in config


@pytest.mark.parametrize(
    ("domain", "service"),
    [
        ("identity", "identity"),
        ("sync", "sync"),
        ("permissions", "permissions"),
        ("crypto", "crypto"),
        ("rpc", "router"),
        ("federated", "superlink"),
    ],
)
def test_calls_go_to_the_service_of_their_domain(config: str, domain: str, service: str) -> None:
    block = _location(config, f"/mesh.{domain}.v1.")
    assert f"grpc_pass grpcs://{domain};" in block
    assert f"grpc_ssl_name mesh-{service};" in block
    # Streams have no size and may be silent for long.
    assert "client_max_body_size 0;" in block
    assert "client_body_timeout 1h;" in block
    upstream = config[config.index(f"upstream {domain} ") :]
    assert f"server mesh-{service}.hub.svc.cluster.local:8081;" in upstream[: upstream.index("}")]


def test_services_are_told_who_is_connected_and_not_what_a_client_says_of_it(config: str) -> None:
    head = config[: config.index("location /mesh.")]
    assert "grpc_set_header X-Real-IP $remote_addr;" in head
    # A location with a header of its own would have this one alone.
    assert config.count("grpc_set_header") == 1


def test_metrics_and_tasks_are_closed(config: str) -> None:
    assert "return 404;" in _location(config, "= /metrics")
    head = r"~ ^/v1/(?:fleet|control|runtime)/acquire-task$"
    assert "return 404;" in _location(config, head)
    # The first regular expression that fits decides.
    assert config.index(f"location {head}") < config.index(
        "location ~ ^/v1/(?:fleet|control|runtime)/[a-z-]+$"
    )


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (KEY, SIGNED),
        (KEY, ""),
        (KEY, "X-Amz-Signature=00ff&acl="),
        (KEY, f"{SIGNED}&uploads="),
        (KEY, f"list-type=2&{SIGNED}"),
        ("/objects/syftmesh", SIGNED),
        ("/objects/syftmesh/", SIGNED),
        ("/objects/syftmesh/a/../../x", SIGNED),
        ("/objects/syftmesh/a/%2e%2e/x", SIGNED),
        ("/objects/syftmesh/a//x", SIGNED),
        ("/objects/SyftMesh/a", SIGNED),
        ("/objects/syftmesh/a b", SIGNED),
        ("/objects/syftmesh/.hidden", SIGNED),
        ("/objects/syftmesh/_a=@-/b.c", SIGNED),
    ],
)
def test_objects_are_passed_as_the_gateway_passes_them(config: str, path: str, query: str) -> None:
    shape = re.search(r"location ~ (\^/objects\S+) \{", config)
    signed = re.search(r'"~(\^\(\?=.*)" 1;', config)
    assert shape is not None
    assert signed is not None
    passes = bool(re.search(shape[1].replace("(?<", "(?P<"), unquote(path)) and re.search(signed[1], query))
    assert passes == _gateway_passes(path, query)


def _gateway_passes(path: str, query: str) -> bool:
    try:
        object_request("GET", path, query, length=None, authorised=False, max_bytes=1)
    except MeshError:
        return False
    return True


def test_objects_carry_no_second_signature_and_the_host_of_the_first(config: str) -> None:
    block = _location(config, r"~ ^/objects(?<object>")
    assert "limit_except GET PUT { deny all; }" in block
    assert "if ($is_unauthorized = 0) { return 403; }" in block
    assert "proxy_set_header Host mesh-store:9000;" in block
    assert "proxy_pass https://store$object?$args;" in block


def test_signatures_are_not_logged(config: str) -> None:
    form = config[config.index("log_format") : config.index("access_log")]
    assert "$uri" in form
    for leaking in ("$request ", '"$request"', "$request_uri", "$args", "$http_authorization"):
        assert leaking not in form
    # What nginx says of a request that failed names its query, too.
    assert "error_log /dev/stderr emerg;" in _location(config, r"~ ^/objects(?<object>")


def test_objects_of_a_store_outside_go_by_the_gateway(helm: Program) -> None:
    store = {"enabled": False, "external": {"endpoint": "https://s3.example.org", "existingSecret": "keys"}}
    manifests = Chart(helm, FOLDER).render(FOLDER / "values-dev.yaml", values={"objectStore": store})
    config = named(manifests, "ConfigMap", "mesh-gateway")["data"]["nginx.conf"]
    block = _location(config, "/objects/")
    assert "proxy_pass http://127.0.0.1:8080;" in block
    assert "error_log /dev/stderr emerg;" in block
    assert "upstream store" not in config
