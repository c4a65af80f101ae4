"""Every sentence of the permissions contract: what the engine shows is shown here, the rest is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import contract_name
import pytest
from contract_table import CONTRACT

import contract_decision  # isort: skip - the order of the page
import contract_pattern  # isort: skip

ROOT = Path(__file__).parents[3]

COMMIT, FEED = "tests/unit/sync/test_commit_files.py", "tests/unit/sync/test_file_log.py"
CHECK, CHECK_SERVED = (
    "tests/unit/permissions/test_ask_permission.py",
    "tests/integration/test_permissions_service.py",
)

ELSEWHERE = {
    "HTTP edges decode `%` once, before this check": "tests/unit/gateway/test_gateway_rules.py",
    "file operations refuse a trailing `/`": f"{COMMIT}::test_a_malformed_path_is_invalid",
    "the services pick the level from what is there": f"{COMMIT}::test_create_adds_and_does_not_change",
    "restoring and deleting need write": COMMIT,
    "Listing shows exactly what may be read": FEED,
    "exact size for plain files, padded for sealed ones": COMMIT,
    "a broken limit is LIMIT_EXCEEDED": COMMIT,
    "links never synchronise": "tests/unit/cli/test_cli_data.py::test_cp_of_folders_both_ways",
    "nothing is stored, the old rules stay active": COMMIT,
    "also after a restart": f"{FEED}::test_a_restart_rebuilds_the_same_state",
    "CheckPermission": CHECK,
    "BatchCheckPermissions (up to 10,000)": "tests/unit/permissions",
    "ExplainPermission": f"{CHECK}::test_explain_names_file_line_and_what_is_needed",
    "ListReaders": "tests/unit/permissions",
    "ListAccessible": "tests/unit/permissions",
    "WatchPermissions": "tests/unit/permissions",
    "Every answer carries a consistency token": f"{CHECK}::test_every_answer_carries_a_token",
    "a replica that has not yet seen a revocation never grants what it took": CHECK_SERVED,
    "after a revocation new requests are denied at once": FEED,
    "open streams end within 5 s, pre-signed URLs die within 60 s": "tests/integration/test_sync_service.py",
    "only an admin of a path may ask about others": f"{CHECK}::test_only_an_admin_of_the_path_asks_about_others",
    "who may not know of a path gets the answer of one that does not exist": CHECK,
    "the same pure engine in every service, kept current from the log": FEED,
}
"""Sentences on services, which the engine cannot show, and the test (or the place of tests) that does."""


@pytest.mark.parametrize("holds", [pytest.param(holds, id=text) for text, holds in CONTRACT])
def test_contract(holds: Callable[[], None]) -> None:
    holds()


def test_each_sentence_stands_once() -> None:
    texts = [text for text, _ in CONTRACT]
    assert len(set(texts)) == len(texts) > 100
    modules = [holds.__module__ for _, holds in CONTRACT]
    assert list(dict.fromkeys(modules)) == [
        m.__name__ for m in (contract_name, contract_decision, contract_pattern)
    ]


@pytest.mark.parametrize("where", sorted(set(ELSEWHERE.values())))
def test_what_is_shown_elsewhere_is_there(where: str) -> None:
    file, _, name = where.partition("::")
    path = ROOT / file
    assert path.exists()
    assert not name or f"def {name}(" in path.read_text()
