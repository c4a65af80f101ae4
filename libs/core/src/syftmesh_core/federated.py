"""A federated run at one site: what an approval of it binds, and the life of a proposal as data.

The approval names everything that the site lets happen: the app bundle, its configuration, the version of the
dataset, who reads updates, the runtime, how many tasks, how large an update, until when. The site builds the
terms again from what it holds before each task and compares every one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from syftmesh_core.approval import (
    DatasetVersion,
    Recipient,
    _digest,
    _document,
    _integer,
    _items,
    _refuse,
    _text,
)
from syftmesh_core.enc import canonical_json
from syftmesh_core.errors import InvalidInput, PermissionDenied, WrongState
from syftmesh_core.job import Role

FEDERATED_APPROVAL_KIND: Final = "federated-approval"

TERM_ORDER: Final = (
    "run_id",
    "app_digest",
    "run_config",
    "dataset",
    "aggregator",
    "recipients",
    "runtime_digest",
    "train_tasks",
    "evaluate_tasks",
    "limits",
    "purpose",
    "expires_ms",
)
"""Names of the terms of an approval, in the order in which differences are named."""

MAX_RUN_ID: Final = (1 << 64) - 1
MAX_NORM: Final = 1e15
"""Largest norm that can be demanded: beyond it clipping means nothing."""

_LIMITS: Final = ("max_update_bytes", "max_norm", "min_rows", "max_metrics")


@dataclass(frozen=True, slots=True)
class UpdateLimits:
    """What bounds one answer of a site.

    Attributes:
        max_update_bytes: Largest answer before it is sealed, in bytes.
        max_norm: L2 norm to which the difference between arrays sent and received is clipped; 0 for none.
        min_rows: Fewest rows of the dataset with which the site answers at all.
        max_metrics: Largest number of metric values.
    """

    max_update_bytes: int
    max_norm: float
    min_rows: int
    max_metrics: int


@dataclass(frozen=True, slots=True)
class RunTerms:
    """Everything that an approval of a run binds; digests are 64 lower-case hex digits.

    Attributes:
        run_id: The run: Flower's own run id, a decimal number below 2^64.
        app_digest: SHA-256 of the app bundle.
        run_config: JSON object of the overrides of the app's run configuration.
        dataset: Version of the private part.
        aggregator: Principal who proposed the run.
        recipients: Who reads updates in the clear.
        runtime_digest: Digest of the Python runtime of the tasks.
        train_tasks: Most training tasks.
        evaluate_tasks: Most evaluation and query tasks together.
        limits: What bounds one answer.
        purpose: What for, in the proposer's words.
        expires_ms: Unix milliseconds from which the approval counts no more.
    """

    run_id: str
    app_digest: str
    run_config: Mapping[str, object]
    dataset: DatasetVersion
    aggregator: str
    recipients: tuple[Recipient, ...]
    runtime_digest: str
    train_tasks: int
    evaluate_tasks: int
    limits: UpdateLimits
    purpose: str
    expires_ms: int

    def to_json(self) -> str:
        """Return the terms as RFC 8785 JSON; the norm is decimal text, so that no float is in it.

        Raises:
            InvalidInput: ENCODING_INVALID when a term is not expressible.
        """
        limits = self.limits
        document: dict[str, object] = {
            "run_id": self.run_id,
            "app_digest": self.app_digest,
            "run_config": dict(self.run_config),
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
            "aggregator": self.aggregator,
            "recipients": [{"email": r.email, "root": r.root} for r in self.recipients],
            "runtime_digest": self.runtime_digest,
            "train_tasks": self.train_tasks,
            "evaluate_tasks": self.evaluate_tasks,
            "limits": {
                "max_update_bytes": limits.max_update_bytes,
                "max_norm": decimal_text(limits.max_norm),
                "min_rows": limits.min_rows,
                "max_metrics": limits.max_metrics,
            },
            "purpose": self.purpose,
            "expires_ms": self.expires_ms,
        }
        return canonical_json(document).decode()


def decimal_text(value: float) -> str:
    """Return the shortest decimal that reads back as `value`, without exponent and without trailing zeros.

    Raises:
        InvalidInput: ENCODING_INVALID unless it is finite, not negative and at most `MAX_NORM`.
    """
    if not (math.isfinite(value) and 0 <= value <= MAX_NORM):
        raise InvalidInput(
            f"A norm is a number from 0 to {MAX_NORM:.0f}; give another.", reason="ENCODING_INVALID"
        )
    text = format(Decimal(repr(float(value))), "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text).removeprefix("-")


def parse_run_terms(data: bytes | str) -> RunTerms:
    """Return the terms in `data`.

    Raises:
        IntegrityFailure: TERMS_INVALID when it is not RFC 8785 JSON of exactly these terms.
    """
    document = _document(data, TERM_ORDER)
    run_config, dataset = document["run_config"], document["dataset"]
    if not isinstance(run_config, dict):
        _refuse("run_config is not an object")
    (version,) = _items({"dataset": [dataset]}, "dataset", ("name", "digest"), DatasetVersion)
    return RunTerms(
        run_id=_text(document, "run_id"),
        app_digest=_digest(document, "app_digest"),
        run_config=run_config,
        dataset=version,
        aggregator=_text(document, "aggregator"),
        recipients=_items(document, "recipients", ("email", "root"), Recipient),
        runtime_digest=_digest(document, "runtime_digest"),
        train_tasks=_integer(document, "train_tasks"),
        evaluate_tasks=_integer(document, "evaluate_tasks"),
        limits=_limits(document["limits"]),
        purpose=_text(document, "purpose"),
        expires_ms=_integer(document, "expires_ms"),
    )


def first_difference(expected: RunTerms, signed: Mapping[str, object]) -> str | None:
    """Return the first term of `expected` that `signed` has not byte for byte, or a surplus one of `signed`.

    Args:
        expected: Built from what the site holds.
        signed: Body of a statement whose signature holds; nothing else of it is assumed.
    """
    held = json.loads(expected.to_json())
    for name in TERM_ORDER:
        if name not in signed or canonical_json({name: held[name]}) != canonical_json({name: signed[name]}):
            return name
    return next((name for name in sorted(signed) if name not in held), None)


def is_run_id(text: str) -> bool:
    """Return whether `text` is a run id: a decimal number from 1 to 2^64 - 1 without leading zeros."""
    is_number = 0 < len(text) <= 20 and text.isascii() and text.isdecimal() and text[0] != "0"
    return is_number and int(text) <= MAX_RUN_ID


class ProposalState(StrEnum):
    """Where a proposal is at a site."""

    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ProposalEvent(StrEnum):
    """What happens to a proposal."""

    APPROVE = "approve"
    DENY = "deny"
    WITHDRAW = "withdraw"
    FINISH = "finish"
    CANCEL = "cancel"
    EXPIRE = "expire"


class ProposalEnd(StrEnum):
    """Why a proposal is over, where neither the hub nor a refusal on arrival gave the reason."""

    DENIED_BY_OWNER = "DENIED_BY_OWNER"
    LEFT_BY_OWNER = "LEFT_BY_OWNER"
    NOT_DECIDED = "NOT_DECIDED"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"


ACTIVE: Final = frozenset({ProposalState.AWAITING_APPROVAL, ProposalState.APPROVED})
"""States that something can still happen in; all others are final."""

_S, _E = ProposalState, ProposalEvent
_OWNER, _RUNNER = frozenset({Role.OWNER}), frozenset({Role.RUNNER})

TRANSITIONS: Final[Mapping[tuple[ProposalState, ProposalEvent], tuple[ProposalState, frozenset[Role]]]] = {
    (_S.AWAITING_APPROVAL, _E.APPROVE): (_S.APPROVED, _OWNER),
    (_S.AWAITING_APPROVAL, _E.DENY): (_S.DENIED, _OWNER | _RUNNER),
    (_S.APPROVED, _E.WITHDRAW): (_S.WITHDRAWN, _OWNER),
    (_S.AWAITING_APPROVAL, _E.FINISH): (_S.FINISHED, _RUNNER),
    (_S.APPROVED, _E.FINISH): (_S.FINISHED, _RUNNER),
    (_S.AWAITING_APPROVAL, _E.CANCEL): (_S.CANCELLED, _RUNNER),
    (_S.APPROVED, _E.CANCEL): (_S.CANCELLED, _RUNNER),
    (_S.AWAITING_APPROVAL, _E.EXPIRE): (_S.EXPIRED, _RUNNER),
    (_S.APPROVED, _E.EXPIRE): (_S.EXPIRED, _RUNNER),
}
"""Every legal step; the runner finishes and cancels by the hub's word."""


def transition(state: ProposalState, event: ProposalEvent, role: Role) -> ProposalState:
    """Return the state that `event` by `role` leads to from `state`.

    Raises:
        PermissionDenied: ROLE_DENIED: the role may never cause the event.
        WrongState: WRONG_STATE: nobody may, in this state.
    """
    if not any(role in roles for (_, known), (_, roles) in TRANSITIONS.items() if known is event):
        raise PermissionDenied(
            f"The {role} of a site cannot take the step '{event}' of a run.",
            reason="ROLE_DENIED",
            metadata={"state": state.value, "event": event.value, "role": role.value},
        )
    step = TRANSITIONS.get((state, event))
    if step is None:
        raise WrongState(
            f"A proposal that is {state} cannot take the step '{event}'; look at its state and decide again.",
            metadata={"state": state.value, "event": event.value},
        )
    return step[0]


def _limits(value: object) -> UpdateLimits:
    if not isinstance(value, dict) or set(value) != set(_LIMITS):
        _refuse("limits have other keys than " + ", ".join(_LIMITS))
    return UpdateLimits(
        max_update_bytes=_integer(value, "max_update_bytes"),
        max_norm=_norm(_text(value, "max_norm")),
        min_rows=_integer(value, "min_rows"),
        max_metrics=_integer(value, "max_metrics"),
    )


def _norm(text: str) -> float:
    try:
        norm = float(text)
        is_canonical = decimal_text(norm) == text
    except (ValueError, InvalidInput):
        is_canonical = False
    if not is_canonical:
        _refuse("max_norm is not the shortest decimal of a number")
    return norm
