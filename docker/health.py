#!/opt/venv/bin/python
"""Ask the service in this container whether it serves; the exit code says it to the container's engine."""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main() -> int:
    """Return 0 when the service serves, 1 when not, 2 when nobody told it where to listen."""
    name = os.environ["SYFTMESH_SERVICE"]
    if name == "tools":  # nothing serves here: whoever needs it runs a program in it
        return 0
    variable = f"SYFTMESH_{name.upper()}_HEALTH_LISTEN"
    listen = os.environ.get(variable, "")
    if not listen:
        print(f"Set {variable}, for instance to 0.0.0.0:8086, so that health can be asked.", file=sys.stderr)
        return 2
    address = f"127.0.0.1:{listen.rpartition(':')[2]}"
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.RpcError as error:
            print(f"Health at {address}: {error.code().name}", file=sys.stderr)
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
