"""The federated example: the app builds, its rounds reach what pooled training reaches, and its messages add up."""

from __future__ import annotations

import sys
import tomllib
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from syftmesh_standalone.demo.data import FILE, private_tables

with warnings.catch_warnings():
    # Flower's typer asks click for a name that goes away.
    warnings.simplefilter("ignore", DeprecationWarning)
    from flwr.app import Context, Error, Message, RecordDict
    from flwr.cli.build import build_fab_from_disk
    from flwr.supercore.task_identity import TaskIdentity

APP = Path(__file__).parents[3] / "examples" / "breast-cancer-fl"
OWNERS = ("owner@hospital-a.example", "owner@hospital-b.example")
RUN_ID = 7


def identifiers(size: int) -> bytes:
    return bytes(size)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return dict(tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"])


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    sys.path.insert(0, str(APP))
    from breast_cancer_fl import client_app, server_app, task

    yield SimpleNamespace(client=client_app, server=server_app, task=task)
    sys.path.remove(str(APP))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("sites")
    return [t.write(root / t.owner).parent for t in private_tables(OWNERS, identifiers)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Outside Flower's own processes a message can only be made once these are set.
    for name, value in (("run_id", RUN_ID), ("node_id", 1), ("task_id", 1)):
        monkeypatch.setattr(TaskIdentity, f"_{name}", value)
    return tmp_path


class SiteGrid:
    """Calls the ClientApp for each site in this process, and counts the messages of each type."""

    def __init__(self, app: Any, folders: list[Path], config: dict[str, Any], absent: int = 0) -> None:
        self.app, self.config, self.absent = app.client.app, config, absent
        self.folders = dict(enumerate(folders, 2))
        self.asked: list[tuple[str, int]] = []
        self.replies: list[Any] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.folders)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.asked.append((message.metadata.message_type, node))
            message.metadata.__dict__["_message_id"] = str(len(self.asked))
            if node == self.absent:
                replies.append(Message(Error(code=200, reason="RUN_DENIED"), reply_to=message))
                continue
            place = {"data-dir": str(self.folders[node]), "dataset": "breast-cancer"}
            context = Context(RUN_ID, node, place, RecordDict(), dict(self.config))
            replies.append(self.app(message, context))
        self.replies += replies
        return replies


def run(app: Any, grid: SiteGrid, config: dict[str, Any]) -> None:
    app.server.app(grid, Context(RUN_ID, 1, {}, RecordDict(), dict(config)))


def saved(app: Any, folder: Path) -> Any:
    with np.load(folder / app.server.MODEL) as arrays:
        assert list(arrays["features"]) == list(app.task.SCALES)
        return app.task.Model(arrays["weights"], arrays["bias"])


def held_out(app: Any, folders: list[Path]) -> Any:
    parts = [app.task.split(app.task.read(folder))[1] for folder in folders]
    return app.task.Table(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def training(app: Any, folders: list[Path]) -> Any:
    parts = [app.task.split(app.task.read(folder))[0] for folder in folders]
    return app.task.Table(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_bundle_holds_the_app_and_nothing_else() -> None:
    bundle = build_fab_from_disk(APP)
    assert bundle == build_fab_from_disk(APP)
    names = {name for name in zipfile.ZipFile(BytesIO(bundle)).namelist() if not name.startswith(".info/")}
    code = {f"breast_cancer_fl/{name}.py" for name in ("__init__", "task", "client_app", "server_app")}
    assert names == code | {"pyproject.toml", "README.md"}


def test_three_rounds_reach_what_pooled_training_reaches(
    app: Any,
    folders: list[Path],
    config: dict[str, Any],
    workplace: Path,
) -> None:
    grid = SiteGrid(app, folders, config)
    run(app, grid, config)
    federated = saved(app, workplace)
    steps = config["num-server-rounds"] * config["local-epochs"]
    pooled = app.task.train(app.task.first_model(), training(app, folders), steps, config["learning-rate"])
    rows = held_out(app, folders)
    reached, possible = app.task.accuracy(federated, rows), app.task.accuracy(pooled, rows)
    assert len(rows.labels) == 113
    assert reached >= 0.95
    assert abs(reached - possible) <= 0.02
    assert app.task.loss(federated, rows) == pytest.approx(app.task.loss(pooled, rows), abs=0.02)


def test_evaluation_happens_after_the_last_round_only(
    app: Any,
    folders: list[Path],
    config: dict[str, Any],
    workplace: Path,
) -> None:
    grid = SiteGrid(app, folders, config)
    run(app, grid, config)
    assert [kind for kind, _ in grid.asked] == ["train"] * 6 + ["evaluate"] * 2
    assert all(len({node for _, node in grid.asked[at : at + 2]}) == 2 for at in range(0, 8, 2))
    counts = [reply.content["metrics"]["num-examples"] for reply in grid.replies]
    assert sorted(counts[:2]) == [159, 297]
    assert sorted(counts[-2:]) == [39, 74]
    assert {*grid.replies[0].content["metrics"]} == {"loss", "accuracy", "num-examples"}
    assert {*grid.replies[-1].content["metrics"]} == {"accuracy", "num-examples"}
    assert "arrays" not in grid.replies[-1].content


def test_model_is_the_mean_weighted_by_rows_and_the_same_every_time(
    app: Any,
    folders: list[Path],
    config: dict[str, Any],
    workplace: Path,
) -> None:
    config = config | {"num-server-rounds": 1}
    models = []
    for _ in range(2):
        run(app, SiteGrid(app, folders, config), config)
        models.append(saved(app, workplace))
    assert models[0].weights.tobytes() == models[1].weights.tobytes()
    own = []
    for folder in folders:
        rows, _ = app.task.split(app.task.read(folder))
        first = app.task.first_model()
        own.append(
            (len(rows.labels), app.task.train(first, rows, config["local-epochs"], config["learning-rate"]))
        )
    expected = sum(n * model.weights for n, model in own) / sum(n for n, _ in own)
    np.testing.assert_allclose(models[0].weights, expected)


def test_run_goes_on_without_a_site_that_refuses(
    app: Any,
    folders: list[Path],
    config: dict[str, Any],
    workplace: Path,
) -> None:
    run(app, SiteGrid(app, folders, config, absent=3), config)
    assert app.task.accuracy(saved(app, workplace), held_out(app, folders)) >= 0.9


def test_run_without_any_answer_fails_and_leaves_no_model(
    app: Any,
    folders: list[Path],
    config: dict[str, Any],
    workplace: Path,
) -> None:
    with pytest.raises(RuntimeError, match="no site sent a model"):
        run(app, SiteGrid(app, folders[:1], config, absent=2), config)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diagnosis,mean_radius\n", "no rows"),
        ("diagnosis,mean_radius\nunknown,1\n", "neither malignant nor benign"),
    ],
)
def test_unusable_table_is_refused(app: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        app.task.read(tmp_path)


def test_held_out_rows_are_never_trained_on(app: Any, folders: list[Path]) -> None:
    table = app.task.read(folders[0])
    kept, held = app.task.split(table)
    assert len(kept.labels) + len(held.labels) == len(table.labels) == 371
    assert not {row.tobytes() for row in kept.features} & {row.tobytes() for row in held.features}
