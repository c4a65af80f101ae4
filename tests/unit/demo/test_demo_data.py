"""The demo's tables, the analysis on them, and what the release gate says of its honest and dishonest results."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from syftmesh_core.clock import system_random
from syftmesh_runner.domain.dataset import Policy
from syftmesh_runner.domain.finding import is_blocking
from syftmesh_runner.domain.gate import Gate
from syftmesh_runner.domain.mock import generate
from syftmesh_standalone.demo.data import (
    DIAGNOSIS,
    FEATURES,
    FILE,
    IDENTIFIER,
    PrivateTable,
    agrees,
    pooled,
    private_tables,
)
from syftmesh_standalone.demo.job import leak, summary

OWNERS = ("a@x.example", "b@x.example")
POLICY = Policy(identifier_columns=(IDENTIFIER,))


@pytest.fixture(scope="module")
def tables() -> tuple[PrivateTable, ...]:
    return private_tables(OWNERS, system_random)


@pytest.fixture
def job_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path))
    monkeypatch.setenv("PARAMETERS", json.dumps({"features": list(FEATURES)}))
    return tmp_path


def test_the_split_is_uneven_whole_and_always_the_same(tables: tuple[PrivateTable, ...]) -> None:
    again = private_tables(OWNERS, system_random)
    assert [len(table.frame) for table in tables] == [371, 198]
    for one, other in zip(tables, again, strict=True):
        rest = [name for name in one.frame.columns if name != IDENTIFIER]
        assert one.frame[rest].equals(other.frame[rest])


def test_every_record_has_an_identifier_that_is_new_each_time(tables: tuple[PrivateTable, ...]) -> None:
    identifiers = [value for table in tables for value in table.identifiers]
    again = [value for table in private_tables(OWNERS, system_random) for value in table.identifiers]
    assert len(set(identifiers) | set(again)) == 2 * 569
    assert all(len(bytes.fromhex(value)) == 16 for value in identifiers)


def test_secrets_are_all_identifiers_and_rows_and_name_no_value(tables: tuple[PrivateTable, ...]) -> None:
    for table in tables:
        secrets = table.secrets()
        assert len({secret.text for secret in secrets}) == 2 * len(table.frame)
        csv = table.csv().decode()
        assert all(secret.text in csv and secret.text not in secret.label for secret in secrets)


def test_the_file_of_a_table_is_its_owners_alone(tables: tuple[PrivateTable, ...], tmp_path: Path) -> None:
    path = tables[0].write(tmp_path / "private")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert pd.read_csv(path).equals(tables[0].frame)


def test_the_analysis_says_what_the_rows_say(tables: tuple[PrivateTable, ...], job_folder: Path) -> None:
    for table in tables:
        (job_folder / FILE).write_bytes(table.csv())
        summary.main()
        found = pd.read_csv(job_folder / "summary.csv").to_dict("records")
        expected = table.summary(FEATURES)
        assert agrees([{str(k): v for k, v in row.items()} for row in found], expected)
        found[0]["mean_radius_mean"] += 0.001
        assert not agrees([{str(k): v for k, v in row.items()} for row in found], expected)


def test_pooling_two_summaries_gives_the_summary_of_all_rows(tables: tuple[PrivateTable, ...]) -> None:
    together = PrivateTable("all", pd.concat([table.frame for table in tables]))
    assert agrees(pooled([table.summary(FEATURES) for table in tables], FEATURES), together.summary(FEATURES))


def test_the_gate_lets_the_honest_table_pass(tables: tuple[PrivateTable, ...], job_folder: Path) -> None:
    for table in tables:
        (job_folder / FILE).write_bytes(table.csv())
        summary.main()
        findings = Gate.of_frames([table.frame], POLICY).check(
            "summary.csv", (job_folder / "summary.csv").read_bytes()
        )
        assert not is_blocking(findings), findings


def test_the_gate_lets_the_report_of_a_job_that_tried_to_escape_pass(
    tables: tuple[PrivateTable, ...],
) -> None:
    lines = ["attempt,outcome", "network internet,OSError Network is unreachable"]
    lines += ["write data,OSError Read-only file system", "read the private rows,371 rows"]
    findings = Gate.of_frames([tables[0].frame], POLICY).check("attempts.csv", "\n".join(lines).encode())
    assert not is_blocking(findings), findings


def test_the_gate_stops_rows_and_names_the_identifier(
    tables: tuple[PrivateTable, ...], job_folder: Path
) -> None:
    (job_folder / FILE).write_bytes(tables[1].csv())
    leak.main()
    findings = Gate.of_frames([tables[1].frame], POLICY).check(
        "extremes.csv", (job_folder / "extremes.csv").read_bytes()
    )
    assert is_blocking(findings)
    assert ("PRIVATE_VALUE", IDENTIFIER) in {(finding.rule, finding.cell) for finding in findings}


def test_a_mock_of_the_table_has_its_form_and_none_of_its_identifiers(
    tables: tuple[PrivateTable, ...],
) -> None:
    frame = tables[1].frame
    mock = generate({FILE: frame}, POLICY, system_random)[FILE]
    assert [(str(a), str(b)) for a, b in mock.dtypes.items()] == [
        (str(a), str(b)) for a, b in frame.dtypes.items()
    ]
    assert not set(mock[IDENTIFIER]) & set(frame[IDENTIFIER])
    assert set(mock[DIAGNOSIS]) == set(frame[DIAGNOSIS])


def test_the_example_is_the_analysis_of_the_demo() -> None:
    root = Path(__file__).parents[3]
    assert (root / "examples/breast-cancer-rds/main.py").read_bytes() == Path(summary.__file__).read_bytes()
