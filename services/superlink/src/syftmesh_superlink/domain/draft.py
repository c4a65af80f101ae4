"""What somebody who starts a run says of it, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from syftmesh_core.bundle import Bundle, fused_config
from syftmesh_core.errors import InvalidInput, MeshError
from syftmesh_core.principal import normalise_principal

from syftmesh_superlink.domain.run import Run, SiteRun

MAX_SITES: Final = 64
MAX_ROUNDS: Final = 10_000
MAX_REPLIES: Final = 10_000
"""Replies that one run's record holds over all its phases: the record is one message on the bus."""

DEADLINE_MS: Final = 7 * 24 * 3600 * 1000
MAX_DEADLINE_MS: Final = 30 * 24 * 3600 * 1000
_MAX_CONFIG_CHARACTERS: Final = 64 * 1024
_MAX_PURPOSE_CHARACTERS: Final = 1000
_DATASET: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Draft:
    """The words of who starts a run; 0 or empty means the default of the contract."""

    sites: tuple[str, ...]
    dataset: str
    rounds: int
    minimum_sites: int = 0
    deadline_ms: int = 0
    run_config_json: str = ""
    purpose: str = ""
    stock: bool = False


@dataclass(frozen=True, slots=True)
class CheckedDraft:
    """A draft that makes a run.

    Attributes:
        config: The overrides of the app's run configuration.
    """

    draft: Draft
    config: Mapping[str, Any]

    def run(self, run_id: str, federation: str, aggregator: str, bundle: Bundle, now_ms: int) -> Run:
        """Return the run."""
        draft = self.draft
        return Run(
            run_id=run_id,
            federation=federation,
            aggregator=aggregator,
            app_digest=bundle.digest,
            app_name=f"{bundle.name}=={bundle.version}",
            dataset=draft.dataset,
            sites=tuple(SiteRun(site, updated_ms=now_ms) for site in draft.sites),
            rounds=draft.rounds,
            minimum_sites=draft.minimum_sites,
            created_ms=now_ms,
            updated_ms=now_ms,
            deadline_ms=draft.deadline_ms,
            run_config_json=draft.run_config_json,
            purpose=draft.purpose,
            stock=draft.stock,
        )


def check_draft(draft: Draft, bundle: Bundle, now_ms: int) -> CheckedDraft:
    """Return the draft with its defaults filled in.

    Raises:
        InvalidInput: RUN_INVALID, metadata ``field``.
    """
    sites = _sites(draft.sites)
    if not _DATASET.fullmatch(draft.dataset):
        raise _refused("dataset", "A dataset's name has 1 to 63 of a-z, 0-9, _ and -.")
    if not 1 <= draft.rounds <= MAX_ROUNDS:
        raise _refused("rounds", f"Give 1 to {MAX_ROUNDS} rounds.")
    if 2 * draft.rounds * len(sites) > MAX_REPLIES:
        raise _refused(
            "rounds",
            f"Rounds times sites must not be more than {MAX_REPLIES // 2}. Start a second run after it.",
        )
    minimum = draft.minimum_sites or len(sites)
    if not 1 <= minimum <= len(sites):
        raise _refused("minimum_sites", f"Between 1 and all {len(sites)} sites have to finish.")
    deadline_ms = draft.deadline_ms or now_ms + DEADLINE_MS
    if not now_ms < deadline_ms <= now_ms + MAX_DEADLINE_MS:
        raise _refused("deadline", "The deadline has to lie within the next 30 days.")
    if len(draft.purpose) > _MAX_PURPOSE_CHARACTERS:
        raise _refused("purpose", f"The purpose has at most {_MAX_PURPOSE_CHARACTERS} characters.")
    config = _config(draft.run_config_json, bundle)
    text = draft.run_config_json or "{}"
    filled = Draft(sites, draft.dataset, draft.rounds, minimum, deadline_ms, text, draft.purpose, draft.stock)
    return CheckedDraft(filled, config)


def _sites(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        sites = tuple(normalise_principal(name) for name in names)
    except MeshError as error:
        raise _refused("sites", error.message) from None
    if not 1 <= len(sites) <= MAX_SITES:
        raise _refused("sites", f"Name 1 to {MAX_SITES} sites.")
    if len(set(sites)) != len(sites):
        raise _refused("sites", "A site is named twice.")
    return sites


def _config(text: str, bundle: Bundle) -> dict[str, Any]:
    field = "run_config_json"
    if not text:
        return {}
    if len(text) > _MAX_CONFIG_CHARACTERS:
        raise _refused(field, f"The configuration has at most {_MAX_CONFIG_CHARACTERS} characters.")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(type(v) in (bool, int, float, str) for v in found.values()):
        raise _refused(field, "The configuration is a JSON object of texts, numbers and truth values.")
    try:
        # The very check that a site makes before a task: what it would refuse begins no run.
        fused = fused_config(bundle, found)
    except InvalidInput as error:
        raise _refused(field, error.message) from None
    return {key: fused[key] for key in found}


def _refused(field: str, message: str) -> InvalidInput:
    return InvalidInput(message, reason="RUN_INVALID", metadata={"field": field})
