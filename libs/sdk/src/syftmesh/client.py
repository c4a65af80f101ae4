"""The blocking client: the same names as `AsyncClient`, for scripts and notebooks."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from syftmesh_client.traffic import Traffic

from syftmesh.async_client import AsyncClient
from syftmesh.blocking_data import Datasets, Files, Keys, Permissions, Rpc
from syftmesh.blocking_job import Jobs
from syftmesh.blocking_rule import Groups
from syftmesh.blocking_run import Federated
from syftmesh.blocking_site import Site
from syftmesh.portal import Portal


class Client:
    """Everything that a person does with the mesh; made by `syftmesh.connect`.

    Attributes:
        datasets: Datasets of sites.
        jobs: Jobs that one submits.
        fl: Federated runs that one starts.
        files: Files of datasites.
        permissions: Who may do what.
        groups: Groups of the own datasite.
        rpc: Calls to apps.
        keys: Own keys and those of others.
        site: The own site on this machine.
    """

    def __init__(self, client: AsyncClient, portal: Portal) -> None:
        self._client = client
        self._portal = portal
        self.datasets = Datasets(portal, client.datasets)
        self.jobs = Jobs(portal, client.jobs)
        self.fl = Federated(portal, client.fl)
        self.files = Files(portal, client.files)
        self.permissions = Permissions(portal, client.permissions)
        self.groups = Groups(portal, client.groups)
        self.rpc = Rpc(portal, client.rpc)
        self.keys = Keys(portal, client.keys)
        self.site = Site(portal, client.site)

    @classmethod
    def opened(cls, client: AsyncClient) -> Self:
        """Open `client` on a loop of its own; raises as `AsyncClient.open`."""
        portal = Portal()
        portal.finally_run(client.close)
        try:
            return cls(portal.run(client.open()), portal)
        except BaseException:
            portal.close()
            raise

    @property
    def email(self) -> str:
        """Whose client it is."""
        return self._client.email

    @property
    def server(self) -> str:
        """The hub's address."""
        return self._client.server

    @property
    def traffic(self) -> Traffic:
        """Bytes sent and received by this client."""
        return self._client.traffic

    def close(self) -> None:
        """Close all connections; safe to call again.

        A client that nobody closes is closed when nothing of it is in use any more, or with the program.
        """
        self._portal.close()

    def __enter__(self) -> Self:
        """Return the client, which is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.email} at {self.server}>"
