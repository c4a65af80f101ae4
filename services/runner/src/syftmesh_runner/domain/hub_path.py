"""Where the runner writes in its owner's datasite."""

from __future__ import annotations

CARD = "card.json"
STATUS = "status.json"
LINEAGE = "lineage.json"


def dataset_path(site: str, name: str, file: str) -> str:
    """Return the path of a dataset's card (`CARD`) or mock (``mock/<file>``)."""
    return f"{site}/app_data/rds/datasets/{name}/{file}"


def result_path(site: str, recipient: str, job_id: str, file: str) -> str:
    """Return the path of a result, or of `STATUS` or `LINEAGE`, for one recipient."""
    return f"{site}/app_data/rds/results/{recipient}/{job_id}/{file}"
