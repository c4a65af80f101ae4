"""The embedded mesh as a process of its own: what ``syftmesh up --detach`` starts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from syftmesh_client.profile import default_state
from syftmesh_core.errors import MeshError
from syftmesh_kit.run import run_service

from syftmesh_standalone.attended import run_attended
from syftmesh_standalone.detach import Reporter
from syftmesh_standalone.info import MeshInfo
from syftmesh_standalone.options import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, MeshOptions, parse_sites


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    given = _parser().parse_args(arguments)
    try:
        options = MeshOptions(
            state=given.state.expanduser().absolute(),
            sites=parse_sites(given.sites),
            processes=given.processes,
            http_port=given.http_port,
            grpc_port=given.grpc_port,
        )
    except MeshError as error:
        sys.exit(_refuse(error))
    if given.report_fd is None:
        sys.exit(run_attended(options, report=_say, on_ready=_say_ready))
    reporter = Reporter(given.report_fd)
    failed: list[MeshError] = []

    def keep(error: MeshError) -> None:
        failed.append(error)
        reporter.error(error)

    code = run_attended(options, report=reporter.progress, on_ready=reporter.ready, on_error=keep)
    sys.exit(_refuse(failed[0]) if failed else code)


def _refuse(error: MeshError) -> int:
    async def fail(_stop: object) -> None:
        raise error

    return run_service(fail)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the program's own output


def _say_ready(info: MeshInfo) -> None:
    print(f"SyftMesh is ready at {info.server}", flush=True)  # noqa: T201 - as above


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="syftmesh-standalone", description=__doc__)
    parser.add_argument("--state", type=Path, default=default_state(), help="state folder")
    parser.add_argument("--sites", default="", help="e-mails of sites to make and start, with commas between")
    parser.add_argument("--processes", action="store_true", help="give each service a process of its own")
    parser.add_argument("--http-port", "--port", type=_port, default=DEFAULT_HTTP_PORT, help="0: a free one")
    parser.add_argument("--grpc-port", type=_port, default=DEFAULT_GRPC_PORT, help="0: a free one")
    parser.add_argument("--report-fd", type=int, default=None, help=argparse.SUPPRESS)
    return parser


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


if __name__ == "__main__":
    main()
