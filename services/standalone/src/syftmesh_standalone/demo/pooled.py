"""The same app's training on all rows in one place, which is what the federated model is compared with."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from syftmesh_standalone.demo.data import PrivateTable

_MODULE: Final = "syftmesh_demo_task"


def pooled_accuracy(app: Path, tables: Sequence[PrivateTable]) -> float:
    """Return the accuracy on the rows that the sites hold out, of a model that saw all the others at once.

    It takes as many steps as the federated one does at each site, with the app's own functions.

    Args:
        app: Folder of the app.
        tables: Every site's table.
    """
    import numpy as np

    task = _task(app)
    config = _config(app)
    with tempfile.TemporaryDirectory(prefix="syftmesh-pooled-") as folder:
        parts = [task.split(task.read(table.write(Path(folder)).parent)) for table in tables]
    inside, outside = (
        task.Table(
            np.concatenate([p[n].features for p in parts]), np.concatenate([p[n].labels for p in parts])
        )
        for n in (0, 1)
    )
    steps = int(config["num-server-rounds"]) * int(config["local-epochs"])
    model = task.train(task.first_model(), inside, steps, float(config["learning-rate"]))
    return float(task.accuracy(model, outside))


def _config(app: Path) -> dict[str, Any]:
    manifest = tomllib.loads((app / "pyproject.toml").read_text())
    return dict(manifest["tool"]["flwr"]["app"]["config"])


def _task(app: Path) -> ModuleType:
    # By its file: the app is no package of this program.
    spec = importlib.util.spec_from_file_location(_MODULE, app / "breast_cancer_fl" / "task.py")
    if spec is None or spec.loader is None:
        raise ImportError("the demo's app has no task.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module
