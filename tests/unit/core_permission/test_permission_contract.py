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
ASKED, SERVED = "tests/unit/permissions", "tests/integration"
CHECK = f"{ASKED}/test_ask_permission.py"
ANSWERED, REPLICAS = f"{SERVED}/test_permissions_service.py", f"{SERVED}/test_rules_replica.py"
REVOKED = f"{SERVED}/test_rules_revocation.py"

ELSEWHERE = {
    "HTTP edges decode `%` once, before this check": (
        "tests/unit/gateway/test_gateway_rules.py::test_a_path_that_is_no_object_is_refused"
    ),
    "file operations refuse a trailing `/`": f"{COMMIT}::test_a_malformed_path_is_invalid",
    "the services pick the level from what is there": f"{COMMIT}::test_create_adds_and_does_not_change",
    "restoring and deleting need write": f"{COMMIT}::test_create_adds_and_does_not_change",
    "Listing shows exactly what may be read": (
        f"{FEED}::test_listing_pages_in_path_order_through_what_may_be_read"
    ),
    "exact size for plain files, padded for sealed ones": (
        f"{COMMIT}::test_limits_of_the_deciding_rule_hold_for_others_and_not_for_the_owner"
    ),
    "a broken limit is LIMIT_EXCEEDED": (
        f"{COMMIT}::test_limits_of_the_deciding_rule_hold_for_others_and_not_for_the_owner"
    ),
    "links never synchronise": "tests/unit/cli/test_cli_data.py::test_cp_of_folders_both_ways",
    "nothing is stored, the old rules stay active": (
        f"{COMMIT}::test_a_refused_rule_file_says_the_line_and_leaves_the_old_rules"
    ),
    "also after a restart": f"{FEED}::test_a_restart_rebuilds_the_same_state",
    "CheckPermission": f"{CHECK}::test_a_reader_is_allowed_and_does_not_learn_the_hidden_rule",
    "BatchCheckPermissions (up to 10,000)": (
        f"{ASKED}/test_batch_permission.py::test_more_questions_than_the_limit_are_refused"
    ),
    "ExplainPermission": f"{CHECK}::test_explain_names_file_line_and_what_is_needed",
    "ListReaders": f"{ASKED}/test_list_reader.py::test_kinds_are_told_apart",
    "ListAccessible": f"{ASKED}/test_list_accessible.py::test_the_walk_finds_exactly_what_may_be_read",
    "WatchPermissions": f"{ASKED}/test_watch_permission.py::test_a_change_of_rules_is_told",
    "Every answer carries a consistency token": f"{CHECK}::test_every_answer_carries_a_token",
    "a replica that has not yet seen a revocation never grants what it took": (
        f"{ANSWERED}::test_no_replica_grants_what_was_revoked_at_the_token"
    ),
    "after a revocation new requests are denied at once": (
        f"{REPLICAS}::test_an_acknowledged_revocation_binds_at_once_at_a_replica_that_is_behind"
    ),
    "open streams end within 5 s": f"{REVOKED}::test_every_stream_of_what_is_revoked_ends_and_no_other",
    "pre-signed URLs die within 60 s": (
        f"{REVOKED}::test_every_url_that_is_signed_lives_sixty_seconds_at_most"
    ),
    "only an admin of a path may ask about others": (
        f"{CHECK}::test_only_an_admin_of_the_path_asks_about_others"
    ),
    "who may not know of a path gets the answer of one that does not exist": (
        f"{CHECK}::test_who_may_not_know_of_a_path_gets_one_answer"
    ),
    "the same pure engine in every service, kept current from the log": (
        f"{FEED}::test_a_restart_rebuilds_the_same_state"
    ),
}
"""Sentences on services, which the engine cannot show, and the test that does."""


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
    assert f"def {name}(" in path.read_text()
