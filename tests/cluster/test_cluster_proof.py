"""What network policies alone do not stop in an installed hub: nobody gets in without certificate, password or keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from syftmesh_standalone.demo.cluster.installation import Installation

sys.path.insert(0, str(Path(__file__).parent))

from mesh_pod import inside

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SERVICES = {
    "identity": "/mesh.identity.v1.IdentityService/WhoAmI",
    "sync": "/mesh.sync.v1.SyncService/ListFiles",
    "permissions": "/mesh.permissions.v1.PermissionService/CheckPermission",
    "crypto": "/mesh.crypto.v1.KeyDirectoryService/ListDevices",
    "router": "/mesh.rpc.v1.RpcService/GetReply",
    "superlink": "/mesh.federated.v1.FederationService/ListRuns",
}
GRPC = """
import json, pathlib, sys
import grpc

def status(channel, method):
    try:
        channel.unary_unary(method)(b"", timeout=10)
        return "OK"
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"

folder = pathlib.Path("/etc/syftmesh/tls")
ca, key, own = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
"""
AS_GATEWAY = (
    GRPC
    + """
found = {}
for name, method in json.loads(sys.argv[1]).items():
    target = f"hub-{name}:8081"
    ways = {
        "plain": grpc.insecure_channel(target),
        "no certificate": grpc.secure_channel(target, grpc.ssl_channel_credentials(ca)),
        "certificate": grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, own)),
    }
    found[name] = {way: status(channel, method) for way, channel in ways.items()}
print(json.dumps(found))
"""
)
AT_HOME = (
    GRPC
    + """
own_call, health = sys.argv[1], "/grpc.health.v1.Health/Check"
foreign = grpc.secure_channel("localhost:8081", grpc.ssl_channel_credentials(ca, key, own))
probe = grpc.insecure_channel("127.0.0.1:8086")
stream = probe.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
try:
    reflected = str(next(stream(iter([bytes([0x3a, 0x01, 0x2a])]), timeout=10)))
except grpc.RpcError as error:
    reflected = error.code().name
print(json.dumps({
    "another component": status(foreign, own_call),
    "health": status(probe, health),
    "service": status(probe, own_call),
    "reflection": reflected,
}))
"""
)
BUS = """
import asyncio, json, os, pathlib, ssl
import nats

folder = pathlib.Path("/etc/syftmesh/tls")
bare = ssl.create_default_context(cafile=folder / "ca.crt")
proven = ssl.create_default_context(cafile=folder / "ca.crt")
proven.load_cert_chain(folder / "tls.crt", folder / "tls.key")
url, user, password = [os.environ[f"SYFTMESH_SYNC_NATS_{name}"] for name in ("URL", "USER", "PASSWORD")]

async def quiet(error):
    pass

async def attempt(**options):
    try:
        bus = await nats.connect(url, allow_reconnect=False, connect_timeout=10, error_cb=quiet, **options)
    except Exception as error:
        return f"{type(error).__name__} {error}"
    await bus.close()
    return "OK"

async def main():
    print(json.dumps({
        "no certificate": await attempt(tls=bare, user=user, password=password),
        "no password": await attempt(tls=proven),
        "wrong password": await attempt(tls=proven, user=user, password=password[:-1] + "#"),
        "another user": await attempt(tls=proven, user="identity", password=password),
        "unknown user": await attempt(tls=proven, user="admin", password=password),
        "right": await attempt(tls=proven, user=user, password=password),
    }))

asyncio.run(main())
"""
STORE = """
import json, os, ssl, time
import urllib.error, urllib.request

context = ssl.create_default_context(cafile=os.environ["SYFTMESH_SYNC_S3_CA_FILE"])
base, bucket = os.environ["SYFTMESH_SYNC_S3_ENDPOINT"], os.environ["SYFTMESH_SYNC_S3_BUCKET"]
wrong = {
    "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
    "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD",
    "Authorization": "AWS4-HMAC-SHA256 Credential=nobody/" + time.strftime("%Y%m%d", time.gmtime())
    + "/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=" + "0" * 64,
}

def status(path, method="GET", body=None, **headers):
    request = urllib.request.Request(base + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

print(json.dumps({
    "buckets": status("/"),
    "objects": status(f"/{bucket}?list-type=2"),
    "read": status(f"/{bucket}/blob/x"),
    "write": status(f"/{bucket}/x", "PUT", b"x"),
    "delete": status(f"/{bucket}/x", "DELETE"),
    "wrong keys": status(f"/{bucket}?list-type=2", **wrong),
}))
"""


@pytest.fixture(scope="module")
def from_gateway(installed_mesh: Installation) -> dict[str, dict[str, str]]:
    """How calls from the gateway's own pod end, which policies let through, by service and by what they bring."""
    where = (installed_mesh.options.hub_namespace, "deploy/hub-gateway", "gateway")
    found: dict[str, dict[str, str]] = inside(*where, AS_GATEWAY, json.dumps(SERVICES))
    return found


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_answers_nobody_without_a_certificate(
    from_gateway: dict[str, dict[str, str]], service: str
) -> None:
    seen = from_gateway[service]
    assert seen["certificate"].startswith("UNAUTHENTICATED "), seen
    assert "certificate" not in seen["certificate"], "a person's token is what is missing now"
    for way in ("plain", "no certificate"):
        assert seen[way].startswith("UNAVAILABLE "), seen


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_answers_no_other_component_and_tells_its_health_alone_without_one(
    installed_mesh: Installation, service: str
) -> None:
    workload = "statefulset" if service == "superlink" else "deploy"
    where = (installed_mesh.options.hub_namespace, f"{workload}/hub-{service}", service)
    seen: dict[str, Any] = inside(*where, AT_HOME, SERVICES[service])
    assert seen.pop("another component").startswith("UNAUTHENTICATED The certificate of the caller"), seen
    assert seen.pop("service").startswith("UNIMPLEMENTED "), seen
    assert seen == {"health": "OK", "reflection": "UNIMPLEMENTED"}


def test_the_bus_takes_nobody_without_certificate_and_password(installed_mesh: Installation) -> None:
    seen = inside(installed_mesh.options.hub_namespace, "deploy/hub-sync", "sync", BUS)
    assert seen.pop("right") == "OK"
    assert "OK" not in seen.values(), seen
    for way in ("no password", "wrong password", "another user", "unknown user"):
        assert "authorization violation" in seen[way].lower(), (way, seen)


def test_the_store_gives_and_takes_nothing_without_keys(installed_mesh: Installation) -> None:
    seen = inside(installed_mesh.options.hub_namespace, "deploy/hub-sync", "sync", STORE)
    assert set(seen.values()) == {403}, seen
