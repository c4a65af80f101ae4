"""An installed hub used by what others have: plain gRPC over TLS, grpcurl, kubectl and `helm test`."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import syftmesh
from mesh.crypto.v1 import crypto_service_pb2, crypto_service_pb2_grpc
from mesh.federated.v1 import federated_service_pb2, federated_service_pb2_grpc
from mesh.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from mesh.permissions.v1 import permissions_pb2, permissions_service_pb2, permissions_service_pb2_grpc
from mesh.rpc.v1 import rpc_service_pb2, rpc_service_pb2_grpc
from mesh.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from syftmesh_kit.errors import from_rpc_error
from syftmesh_standalone.demo.cluster.installation import HUB, Installation
from syftmesh_standalone.demo.cluster.session import ConsoleSession, remote_client
from syftmesh_standalone.demo.story import OWNERS

sys.path.insert(0, str(Path(__file__).parent))

from mesh_load import authority
from mesh_pod import KubectlFailed, eventually, forwarded, helm, kubectl, restarted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PROTOS = Path(__file__).parents[2] / "protos"
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"
MARK = f"marked-{secrets.token_hex(6)}"
CODE = """
import os, pathlib, time
import pandas as pd
frame = pd.read_csv(pathlib.Path(os.environ["DATA_DIR"]) / "people.csv")
print(frame.to_string())
time.sleep(25)
(pathlib.Path(os.environ["OUTPUT_DIR"]) / "count.txt").write_text(str(len(frame)))
"""


@pytest.fixture(scope="module")
def port(installed_mesh: Installation) -> Iterator[int]:
    with forwarded(installed_mesh.options.hub_namespace, f"{HUB}-gateway", 443) as found:
        yield found


@pytest.fixture(scope="module")
def ca(installed_mesh: Installation) -> bytes:
    return authority(installed_mesh).encode()


def new_email() -> str:
    return f"person-{secrets.token_hex(3)}@lab.example"


async def reason(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value).reason


async def test_plain_grpc_with_the_hubs_certificate_reaches_every_service_by_the_one_port(
    installed_mesh: Installation, port: int, ca: bytes
) -> None:
    email = new_email()
    secret = await installed_mesh.join_token(email)
    credentials = grpc.ssl_channel_credentials(root_certificates=ca)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        identity: Any = identity_service_pb2_grpc.IdentityServiceStub(channel)
        redeem = identity_service_pb2.RedeemJoinTokenRequest(
            secret=secret, principal=email, device_id="plain-grpc"
        )
        tokens = (await identity.RedeemJoinToken(redeem)).tokens
        assert await reason(identity.RedeemJoinToken(redeem)) == "JOIN_TOKEN_INVALID", "it worked twice"

        shown = (("authorization", f"Bearer {tokens.access_token}"),)
        who = await identity.WhoAmI(identity_service_pb2.WhoAmIRequest(), metadata=shown)
        assert (who.principal, who.device_id) == (email, "plain-grpc")
        assert who.issuer == f"https://{HUB}-gateway.{installed_mesh.options.hub_namespace}.svc"
        wrong = (("authorization", f"Bearer {tokens.access_token[:-4]}AAAA"),)
        assert (
            await reason(identity.WhoAmI(identity_service_pb2.WhoAmIRequest(), metadata=wrong))
            == "TOKEN_INVALID"
        )
        assert await reason(identity.WhoAmI(identity_service_pb2.WhoAmIRequest())) == "TOKEN_MISSING"

        sync: Any = sync_service_pb2_grpc.SyncServiceStub(channel)
        files = await sync.ListFiles(sync_service_pb2.ListFilesRequest(prefix=email), metadata=shown)
        assert list(files.entries) == []
        rights: Any = permissions_service_pb2_grpc.PermissionServiceStub(channel)
        question = permissions_pb2.Question(path=f"{OWNERS[0]}/private/x", level=permissions_pb2.LEVEL_READ)
        request = permissions_service_pb2.CheckPermissionRequest(question=question)
        assert not (await rights.CheckPermission(request, metadata=shown)).decision.allowed
        keys: Any = crypto_service_pb2_grpc.KeyDirectoryServiceStub(channel)
        listed = crypto_service_pb2.ListDevicesRequest(principal=OWNERS[0])
        assert (await keys.ListDevices(listed, metadata=shown)).device_lists
        router: Any = rpc_service_pb2_grpc.RpcServiceStub(channel)
        unknown = rpc_service_pb2.GetReplyRequest(call_id=UNKNOWN)
        assert await reason(router.GetReply(unknown, metadata=shown)) == "CALL_UNKNOWN"
        runs: Any = federated_service_pb2_grpc.FederationServiceStub(channel)
        found = await runs.ListRuns(federated_service_pb2.ListRunsRequest(), metadata=shown)
        assert list(found.runs) == []


async def test_a_client_that_does_not_know_the_hubs_authority_sends_nothing(port: int) -> None:
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials()) as channel:
        stub: Any = identity_service_pb2_grpc.IdentityServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetKeySet(identity_service_pb2.GetKeySetRequest(), timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.details())


def test_grpcurl_speaks_with_the_hub_by_the_published_protos(port: int, ca: bytes, tmp_path: Path) -> None:
    program = shutil.which("grpcurl")
    if program is None:
        pytest.skip("grpcurl is not on the path")
    (tmp_path / "ca.pem").write_bytes(ca)
    given = (
        "-cacert",
        tmp_path / "ca.pem",
        "-import-path",
        PROTOS,
        "-proto",
        "mesh/identity/v1/identity_service.proto",
    )
    target = (f"localhost:{port}", "mesh.identity.v1.IdentityService")

    def run(method: str) -> subprocess.CompletedProcess[str]:
        command = [program, *given, target[0], f"{target[1]}/{method}"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # type: ignore[arg-type]

    answer = run("GetKeySet")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["keys"]
    refused = run("WhoAmI")
    assert refused.returncode != 0
    assert "Code: Unauthenticated" in refused.stderr


@pytest.mark.parametrize("release", [HUB, "site-a", "site-b"])
def test_helm_test_is_green(installed_mesh: Installation, release: str) -> None:
    places = dict(zip((HUB, "site-a", "site-b"), installed_mesh.namespaces, strict=False))
    name = HUB if release == HUB else "site"
    said = helm("test", name, "--namespace", places[release], "--timeout", "180s")
    assert "Phase:          Succeeded" in said


def test_a_token_of_a_site_works_once(
    installed_mesh: Installation, port: int, ca: bytes, tmp_path: Path
) -> None:
    email = new_email()
    (tmp_path / "ca.pem").write_bytes(ca)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(asyncio.run(installed_mesh.join_token(email)))
    for number in range(2):
        command = [
            *(sys.executable, "-m", "syftmesh.cli", "login", "--email", email, "--token-file", token),
            *("--server", f"https://localhost:{port}", "--ca-file", tmp_path / "ca.pem"),
            *("--state", tmp_path / f"state-{number}", "--recovery-out", tmp_path / f"phrase-{number}"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if number:
            assert done.returncode != 0
            assert "JOIN_TOKEN_INVALID" in done.stderr
        else:
            assert done.returncode == 0, done.stderr


async def test_kubectl_tells_of_a_run_and_nothing_of_its_data(
    installed_mesh: Installation, port: int, ca: bytes, tmp_path: Path
) -> None:
    owner, scientist = OWNERS[0], new_email()
    site, server, dataset = (
        installed_mesh.site_of(owner),
        f"https://localhost:{port}",
        f"d{secrets.token_hex(3)}",
    )
    token, code, ca_file = tmp_path / "token", tmp_path / "count.py", tmp_path / "ca.pem"
    token.touch(mode=0o600)
    token.write_text(await installed_mesh.join_token(scientist))
    code.write_text(CODE)
    ca_file.write_bytes(ca)
    await asyncio.to_thread(
        syftmesh.login, server, email=scientist, token_file=token, ca_file=ca_file, state=tmp_path / "state",
        recovery_out=tmp_path / "phrase",
    )  # fmt: skip
    table = "".join(["name,age\n", *(f"{MARK}-{n},{n}\n" for n in range(20, 80))])
    incoming = f"/var/lib/syftmesh/incoming/{dataset}"
    kubectl(
        *("exec", "-i", "-n", site, "site-0", "-c", "console", "--", "python", "-c"),
        f"import os, sys; os.makedirs('{incoming}'); open('{incoming}/people.csv', 'w').write(sys.stdin.read())",
        text=table,
    )
    session = ConsoleSession(installed_mesh.kubectl, site, "site-0", owner)
    async with (
        remote_client(session) as alice,
        syftmesh.connect_async(server, profile=scientist, state=tmp_path / "state") as carol,
    ):
        await alice.site.datasets.create(
            dataset, Path(incoming) / "people.csv", summary="People", audience=[scientist],
            policy={"identifier_columns": ["name"]},
        )  # fmt: skip
        found = await carol.datasets.get(f"{owner}/{dataset}")
        job = await carol.jobs.submit(code, datasets=[found], parameters={}, purpose="how many")
        await alice.site.jobs.approve(job.id)
        seen = await asyncio.to_thread(_seen, f"{site}-jobs", job.id)
        ended = await _ended(alice, job.id)
    assert ended.state == "succeeded", ended
    assert f"syftmesh.org/job={job.id}" in seen
    assert "syftmesh.org/site=" in seen
    assert "Events:" in seen
    assert MARK not in seen
    assert MARK not in json.dumps(
        json.loads(kubectl("get", "events,jobs,pods", "-n", f"{site}-jobs", "-o", "json"))
    )


def _seen(namespace: str, job_id: str) -> str:
    """Return all that people see of a run while it goes on: the objects, what happened, and the log."""
    selector = f"syftmesh.org/job={job_id}"

    def running() -> bool:
        found = json.loads(kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]
        return any(pod["status"]["phase"] == "Running" for pod in found)

    eventually(running, 120, "the pod of the run")
    parts = []
    for _ in range(3):  # before and while the code prints what it read
        time.sleep(4)
        for words in (
            ("get", "jobs", "-l", selector, "--show-labels"),
            ("describe", "jobs", "-l", selector),
            ("describe", "pods", "-l", selector),
            ("logs", "-l", selector, "--all-containers", "--tail=-1"),
        ):
            try:
                parts.append(kubectl(words[0], "-n", namespace, *words[1:]))
            except KubectlFailed as error:
                parts.append(str(error))
    return "\n".join(parts)


async def _ended(client: Any, job_id: str) -> Any:
    async with asyncio.timeout(180):
        while True:
            job = await client.site.jobs.get(job_id)
            if str(job.state) not in ("approved", "queued", "running"):
                return job
            await asyncio.sleep(1)


def test_no_container_of_the_mesh_began_anew(installed_mesh: Installation) -> None:
    for namespace in installed_mesh.namespaces[:3]:
        assert restarted(namespace) == {}
