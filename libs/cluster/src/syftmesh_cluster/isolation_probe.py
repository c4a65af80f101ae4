"""Is a pod shut off as the pods of jobs must be? Prints one line per check, and ends with 1 when one failed.

``python -m syftmesh_cluster.isolation_probe``, or this file alone (only the standard library is used), in a pod with
the security context, network policy, user namespace and RuntimeClass of jobs. Settings, from variables:

* ``SYFTMESH_PROBE_GRACE_S``: seconds that a network policy may take to bind (default 20);
* ``SYFTMESH_PROBE_USER_NAMESPACE``: ``true`` when the pod must run in a user namespace (``hostUsers: false``);
* ``SYFTMESH_PROBE_RUNTIME_CLASS``: name of the RuntimeClass; one with ``gvisor`` or ``runsc`` in it is recognised;
* ``SYFTMESH_PROBE_TARGETS``: further ``host:port`` that must not be reached, separated by commas.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CONNECT_S = 2.0
PAUSE_S = 0.5
METADATA = "169.254.169.254:80"
TOKEN_FOLDERS = (
    "/var/run/secrets/kubernetes.io",
    "/run/secrets/kubernetes.io",
    "/var/run/secrets/eks.amazonaws.com",
)
SECCOMP_FILTER = "2"
READ_ALL = 3  # klogctl: the whole log, leaving it as it is
KERNEL_LOG_BYTES = 64 * 1024
GVISOR_BUILD = "Sun Jan 10 15:06:54 PST 2016"  # what releases before its own version number say
IDENTITY_MAP = ("0", "0", "4294967295")
# A question of type A for the name `kubernetes.default.svc`, as a DNS message (RFC 1035, section 4.1).
DNS_QUESTION = (
    b"\x53\x4d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x00\x00\x01\x00\x01"
)
NEXT = {
    "network": "Install a network plugin that enforces NetworkPolicy (Calico, Cilium, kube-router), and look at: "
    "kubectl get networkpolicy -A",
    "user-namespace": "Needs Kubernetes 1.33+, a kernel 6.3+ and containerd 2 or CRI-O; without them say "
    "jobs.hostUsers=true and a RuntimeClass such as gvisor instead.",
    "runtime-class": "Look at: kubectl get runtimeclass -o yaml, and whether its handler is installed on every node",
    "pod": "Something changed the security context or the service account of the pod, look at: "
    "kubectl get pod -o yaml, and at admission webhooks",
}


@dataclass(frozen=True)
class Settings:
    """What the probe is told; see the module."""

    grace_s: float = 20.0
    user_namespace: bool = False
    runtime_class: str = ""
    targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Settings:
        """Return the settings in the variables `given`.

        Raises:
            ValueError: One is not valid; the text names it.
        """
        flag = given.get("SYFTMESH_PROBE_USER_NAMESPACE", "").strip().lower() or "false"
        if flag not in {"true", "false"}:
            raise ValueError("SYFTMESH_PROBE_USER_NAMESPACE must be true or false")
        try:
            grace_s = float(given.get("SYFTMESH_PROBE_GRACE_S", "").strip() or cls.grace_s)
        except ValueError:
            raise ValueError("SYFTMESH_PROBE_GRACE_S must be a number of seconds") from None
        listed = [part.strip() for part in given.get("SYFTMESH_PROBE_TARGETS", "").split(",") if part.strip()]
        for target in listed:
            _address(target)
        runtime = given.get("SYFTMESH_PROBE_RUNTIME_CLASS", "").strip()
        return cls(grace_s, flag == "true", runtime, tuple(listed))


@dataclass(frozen=True)
class Finding:
    """What one check saw: its name, whether it holds, what was seen, and which advice of `NEXT` helps."""

    name: str
    ok: bool
    seen: str
    advice: str = "pod"


class Place:
    """Where the files of the kernel and of the pod are; a folder of its own in tests.

    Args:
        root: What stands for ``/``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def path(self, name: str) -> Path:
        """Return where the absolute `name` is."""
        return self._root / name.lstrip("/")

    def text(self, name: str) -> str:
        """Return the content of the file `name`, empty when it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace")
        except OSError:
            return ""

    def status(self) -> dict[str, str]:
        """Return the fields of ``/proc/self/status``."""
        pairs = (line.partition(":") for line in self.text("/proc/self/status").splitlines())
        return {name: value.strip() for name, _, value in pairs}


def tcp_reached(target: str) -> bool:
    """Return whether a connection to `target` is made.

    Being refused is not being reached: some network plugins refuse what a policy denies instead of dropping it.
    """
    try:
        with socket.create_connection(_address(target), CONNECT_S):
            return True
    except OSError:
        return False


def udp_answered(target: str) -> bool:
    """Return whether the name server `target` answers by UDP."""
    host, port = _address(target)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(CONNECT_S)
            asking.connect((host, port))
            asking.send(DNS_QUESTION)
            return bool(asking.recv(512))
    except OSError:
        return False


def kernel_log() -> str:
    """Return the kernel's log, empty when we may not read it; gVisor gives one of its own to everybody."""
    text = ctypes.create_string_buffer(KERNEL_LOG_BYTES)
    size = ctypes.CDLL(None).klogctl(READ_ALL, text, KERNEL_LOG_BYTES)
    return text.raw[: max(size, 0)].decode(errors="replace")


Reach = Callable[[str], bool]


def network(
    settings: Settings,
    place: Place,
    given: Mapping[str, str],
    *,
    tcp: Reach = tcp_reached,
    udp: Reach = udp_answered,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Finding]:
    """Return for each target whether it stays out of reach, once the grace for the policy has passed or before."""
    wanted = list(dict.fromkeys(_targets(settings, place, given)))
    reach = {"tcp": tcp, "udp": udp}
    deadline_s = now_s() + settings.grace_s
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        while True:
            answers = pool.map(lambda way: reach[way[0]](way[1]), wanted)
            seen = dict(zip(wanted, answers, strict=True))
            if not any(seen.values()) or now_s() >= deadline_s:
                break
            sleep(PAUSE_S)
    findings = [
        Finding(f"no-{kind}-{target}", not reached, "reached" if reached else "not reached", "network")
        for (kind, target), reached in seen.items()
    ]
    if not any(kind == "tcp" and target == _api(given) for kind, target in wanted):
        lost = "KUBERNETES_SERVICE_HOST and _PORT are not set, so nothing shows that the API is out of reach"
        findings.append(Finding("no-tcp-kubernetes-api", ok=False, seen=lost, advice="pod"))
    return findings


def _targets(settings: Settings, place: Place, given: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    if _api(given):
        yield "tcp", _api(given)
    for line in place.text("/etc/resolv.conf").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            server = _join(words[1], "53")
            yield "udp", server
            yield "tcp", server
    yield "tcp", METADATA
    for target in settings.targets:
        yield "tcp", target


def _api(given: Mapping[str, str]) -> str:
    host, port = given.get("KUBERNETES_SERVICE_HOST", ""), given.get("KUBERNETES_SERVICE_PORT", "")
    return _join(host, port) if host and port else ""


def account(place: Place) -> Finding:
    """Return whether no token of a service account lies in the pod."""
    found = [name for name in TOKEN_FOLDERS if place.path(name).exists()]
    seen = f"{found[0]} is there" if found else "none is there"
    return Finding("no-service-account-token", not found, seen)


def is_gvisor(place: Place, log: str) -> bool:
    """Return whether the kernel below is gVisor's, by what it says of its version and of its start."""
    version = place.text("/proc/version")
    return "gvisor" in version.lower() or GVISOR_BUILD in version or "Starting gVisor" in log


def user_namespace(settings: Settings, place: Place, *, sandboxed: bool) -> Finding:
    """Return whether users in here are others outside; gVisor shows a kernel of its own, where the map says nothing."""
    name = "user-namespace"
    lines = [tuple(line.split()) for line in place.text("/proc/self/uid_map").splitlines()]
    if not settings.user_namespace:
        return Finding(name, ok=True, seen="not asked for", advice=name)
    if sandboxed:
        return Finding(name, ok=True, seen="gVisor: its own kernel stands in between", advice=name)
    if not lines:
        return Finding(name, ok=False, seen="/proc/self/uid_map cannot be read", advice=name)
    if IDENTITY_MAP in lines or any(line[0] == line[1] for line in lines if len(line) == 3):
        return Finding(name, ok=False, seen="users of this pod are those of the node", advice=name)
    return Finding(name, ok=True, seen=f"user {lines[0][0]} is {lines[0][1]} on the node", advice=name)


def runtime_class(settings: Settings, *, sandboxed: bool) -> Finding:
    """Return whether the pod runs on the kernel that its RuntimeClass promises."""
    name, wanted = "runtime-class", settings.runtime_class
    promises = any(word in wanted.lower() for word in ("gvisor", "runsc"))
    if promises:
        seen = "gVisor's kernel" if sandboxed else f"the node's own kernel, although {wanted} is asked for"
        return Finding(name, sandboxed, seen, name)
    return Finding(
        name, ok=True, seen=f"{wanted}: not one that can be recognised" if wanted else "none asked for"
    )


def process(place: Place, *, sandboxed: bool) -> list[Finding]:
    """Return what the kernel says of this process: user, privileges, capabilities, filter of system calls."""
    status = place.status()
    users = status.get("Uid", "").split()
    sets = {name: status.get(name, "") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    # gVisor leaves out what it has not: a set that is missing is nothing to hold.
    held = [
        name for name, value in sets.items() if (value or ("0" if sandboxed and status else "f")).strip("0")
    ]
    privileges = status.get("NoNewPrivs", "1" if sandboxed and status else "")
    seccomp = status.get("Seccomp", "")
    return [
        Finding(
            "not-root", bool(users) and "0" not in users, f"user {users[1] if len(users) > 1 else 'unknown'}"
        ),
        Finding("no-new-privileges", privileges == "1", f"NoNewPrivs {privileges or 'unknown'}"),
        Finding(
            "no-capabilities", not held, f"{', '.join(held)} not empty" if held else "all sets are empty"
        ),
        Finding(
            "seccomp",
            sandboxed or seccomp == SECCOMP_FILTER,
            "gVisor stands in for it" if sandboxed else f"Seccomp {seccomp or 'unknown'}",
        ),
    ]


def read_only_root(place: Place) -> Finding:
    """Return whether nothing can be written at ``/``."""
    name = "read-only-root"
    trial = place.path("/.syftmesh-isolation-probe")
    try:
        descriptor = os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        if error.errno == errno.EROFS:
            return Finding(name, ok=True, seen="the file system is read-only")
        mounts = [line.split() for line in place.text("/proc/self/mounts").splitlines()]
        options = [words[3].split(",") for words in mounts if len(words) > 3 and words[1] == "/"]
        is_read_only = bool(options) and "ro" in options[-1]
        return Finding(name, is_read_only, "mounted read-only" if is_read_only else "mounted for writing")
    os.close(descriptor)
    trial.unlink()
    return Finding(name, ok=False, seen="a file could be written at /")


def probe(settings: Settings, place: Place, given: Mapping[str, str]) -> list[Finding]:
    """Return what every check saw."""
    sandboxed = is_gvisor(place, kernel_log())
    return [
        *process(place, sandboxed=sandboxed),
        read_only_root(place),
        account(place),
        user_namespace(settings, place, sandboxed=sandboxed),
        runtime_class(settings, sandboxed=sandboxed),
        *network(settings, place, given),
    ]


def report(findings: Iterable[Finding]) -> int:
    """Print one line per finding and what to do, and return the exit code."""
    failed: list[Finding] = []
    for found in findings:
        _say(f"{'ok  ' if found.ok else 'fail'}  {found.name}: {found.seen}")
        failed += [] if found.ok else [found]
    if not failed:
        _say("The pod is shut off as pods of jobs must be.")
        return 0
    _say(
        f"ISOLATION_WEAK: other people's code must not run here: {', '.join(found.name for found in failed)}"
    )
    for advice in dict.fromkeys(found.advice for found in failed):
        _say(f"next: {NEXT[advice]}")
    return 1


def main(given: Mapping[str, str] | None = None) -> int:
    """Run the probe and return its exit code: 0 all holds, 1 a check failed, 2 a setting is wrong."""
    variables = os.environ if given is None else given
    try:
        settings = Settings.of(variables)
    except ValueError as error:
        _say(f"SETTING_INVALID: {error}")
        return 2
    return report(probe(settings, Place(), variables))


def _address(target: str) -> tuple[str, int]:
    host, separator, port = target.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"SYFTMESH_PROBE_TARGETS must hold host:port, not {target}")
    return host.strip("[]"), int(port)


def _join(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the log of a Job is what it is for


if __name__ == "__main__":
    sys.exit(main())
