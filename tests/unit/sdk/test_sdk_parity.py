"""Blocking and asynchronous clients have the same names with the same parameters."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from syftmesh import (
    async_client,
    blocking_data,
    blocking_job,
    blocking_rule,
    blocking_run,
    blocking_site,
    client,
)
from syftmesh.dataset import AsyncDatasets, AsyncMock
from syftmesh.file import AsyncFiles
from syftmesh.group import AsyncGroups
from syftmesh.job import AsyncJob
from syftmesh.job_desk import AsyncJobs
from syftmesh.key import AsyncKeys
from syftmesh.permission import AsyncPermissions
from syftmesh.result import AsyncResults
from syftmesh.rpc import AsyncRpc
from syftmesh.rule_desk import AsyncRuleDesk
from syftmesh.run import AsyncRun
from syftmesh.run_desk import AsyncFederated
from syftmesh.site import AsyncSite
from syftmesh.site_audit import AsyncAudit
from syftmesh.site_dataset import AsyncSiteDatasets
from syftmesh.site_job import AsyncSiteJobs
from syftmesh.site_run import AsyncSiteRuns

PAIRS = [
    (AsyncMock, blocking_data.Mock, {"contents"}),
    (AsyncDatasets, blocking_data.Datasets, set()),
    (AsyncFiles, blocking_data.Files, set()),
    (AsyncPermissions, blocking_data.Permissions, set()),
    (AsyncRuleDesk, blocking_rule.RuleDesk, set()),
    (AsyncGroups, blocking_rule.Groups, set()),
    (AsyncRpc, blocking_data.Rpc, set()),
    (AsyncKeys, blocking_data.Keys, set()),
    (AsyncResults, blocking_job.Results, set()),
    (AsyncJob, blocking_job.Job, {"look", "is_unseen", "id", "site"}),
    (AsyncJobs, blocking_job.Jobs, set()),
    (AsyncRun, blocking_run.Run, {"id"}),
    (AsyncFederated, blocking_run.Federated, {"close", "serve"}),
    (AsyncSiteRuns, blocking_run.SiteRuns, set()),
    (AsyncSiteDatasets, blocking_site.SiteDatasets, set()),
    (AsyncSiteJobs, blocking_site.SiteJobs, set()),
    (AsyncAudit, blocking_site.Audit, set()),
    (AsyncSite, blocking_site.Site, {"close"}),
    (async_client.AsyncClient, client.Client, {"open", "opened", "traffic"}),
]
"""Asynchronous class, blocking class, and what one has for each object, or for itself alone."""


def names(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def parameters(kind: type, name: str) -> Any:
    member = vars(kind)[name]
    if isinstance(member, property):
        return None
    return [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]


@pytest.mark.parametrize(("asynchronous", "blocking", "apart"), PAIRS)
def test_both_clients_have_the_same_names(asynchronous: type, blocking: type, apart: set[str]) -> None:
    assert names(asynchronous) - apart == names(blocking) - apart
    for name in names(blocking) - apart:
        assert parameters(asynchronous, name) == parameters(blocking, name), name
        assert vars(blocking)[name].__doc__, name
