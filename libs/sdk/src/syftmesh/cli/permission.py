"""Verbs of rights: acl check, explain, show, readers; acl set has a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from syftmesh_core.errors import InvalidInput, NotFound
from syftmesh_core.path import RULES_FILE, parse_path
from syftmesh_core.quote import quoted

from syftmesh.cli import acl_set
from syftmesh.cli.file import MeshPath
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Block, Fields
from syftmesh.cli.quantity import moment, size_bytes

if TYPE_CHECKING:
    from syftmesh.permission import Decision, Explanation

EXIT_DENIED = 3
LEVELS = ("read", "create", "write", "admin")

As = Annotated[
    str | None,
    typer.Option("--as", metavar="WHO", help="E-mail, guest or anonymous; you.", show_default=False),
]
Level = Annotated[str, typer.Option("--level", help="read, create, write or admin.")]
Size = Annotated[str | None, typer.Option("--size", metavar="N", help="Size of the new version, like 10MB.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="Moment of the decision; now.")]


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    acl = group(app, "acl", "Who may do what with a path.")
    verb(acl, "check", example="syftmesh acl check alice@hospital.example/public/a.csv --as guest --json")(
        check
    )
    verb(acl, "explain", example="syftmesh acl explain alice@hospital.example/public/a.csv --level write")(
        explain
    )
    verb(acl, "show", example="syftmesh acl show alice@hospital.example/public")(show)
    verb(acl, "readers", example="syftmesh acl readers alice@hospital.example/reports/may.csv --json")(
        readers
    )
    acl_set.register(acl)
    return acl


def check(
    frame: Frame, path: MeshPath, as_: As = None, level: Level = "read", size: Size = None, at: At = None
) -> None:
    """Tell whether somebody may do something with a path: exit 0 when allowed, 3 when not."""
    with frame.client() as client:
        decision = client.permissions.check(path, **_question(frame, as_, level, size, at))
    document = decision_document(decision)
    answer = "allowed" if decision.allowed else "denied"
    frame.emit(document, f"{answer}: {decision.level} {decision.path} ({decision.reason})")
    if not decision.allowed:
        frame.finish(EXIT_DENIED)


def explain(
    frame: Frame, path: MeshPath, as_: As = None, level: Level = "read", size: Size = None, at: At = None
) -> None:
    """Show which rule decides about a path, and what would have to be so for the other answer."""
    with frame.client() as client:
        explanation = client.permissions.explain(path, **_question(frame, as_, level, size, at))
    document = explanation_document(explanation)
    frame.emit(document, Fields(_flat(document)))


def show(frame: Frame, path: MeshPath) -> None:
    """Show the rule files that lie on the way from the site's root to a path, as far as you may read them."""
    place = parse_path(path, drop_trailing_slash=True)
    folders = [place]
    while not folders[-1].is_root:
        folders.append(folders[-1].parent)
    if place.is_rules_file:
        folders = folders[1:]
    items: list[dict[str, object]] = []
    with frame.client() as client:
        for folder in reversed(folders):
            name = str(folder.child(RULES_FILE))
            try:
                items.append({"path": name, "content": client.files.read(name).decode("utf-8", "replace")})
            except NotFound as error:
                frame.detail(error.message)
    if not items:
        raise NotFound(
            f"There is no rule file above {place} that you may read.",
            reason="RULES_MISSING",
            metadata={"path": str(place)},
            hint=f"syftmesh acl explain {place}",
        )
    blocks = [Block(f"# {item['path']}\n{item['content']}") for item in items]
    frame.emit({"items": items}, *blocks)


def readers(frame: Frame, path: MeshPath, at: At = None) -> None:
    """Show who can read a path, as far as you may know it: a closed set of people, or more than those named."""
    moment_asked = None if at is None else moment(at, frame.surroundings.clock)
    with frame.client() as client:
        found = client.permissions.readers(path, at=moment_asked)
    document = {
        "path": found.path,
        "kind": str(found.kind),
        "principals": list(found.principals),
        "why": found.why,
        "token": found.token,
    }
    frame.emit(document, Fields([(name, document[name]) for name in ("kind", "principals", "why")]))


def decision_document(decision: Decision) -> dict[str, object]:
    """Return what `acl check --json` prints, as the contract fixes it."""
    rule = decision.rule
    return {
        "allowed": decision.allowed,
        "path": decision.path,
        "principal": decision.principal,
        "level": str(decision.level),
        "reason": decision.reason,
        "rule": None if rule is None else {"file": rule.file, "line": rule.line, "pattern": rule.pattern},
        "token": decision.token,
    }


def explanation_document(explanation: Explanation) -> dict[str, object]:
    """Return what `acl explain --json` prints: the decision, and what it needs."""
    return {
        **decision_document(explanation),
        "governing_file": explanation.governing_file,
        "needed": explanation.needed,
    }


def _question(frame: Frame, as_: str | None, level: str, size: str | None, at: str | None) -> dict[str, Any]:
    if level not in LEVELS:
        raise InvalidInput(
            f"{quoted(level)} is no level; take read, create, write or admin.",
            reason="LEVEL_INVALID",
            metadata={"level": quoted(level)},
        )
    question: dict[str, Any] = {"level": level, "as_": as_}
    if size is not None:
        question["size_bytes"] = size_bytes(size)
    if at is not None:
        question["at"] = moment(at, frame.surroundings.clock)
    return question


def _flat(document: dict[str, object]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in document.items():
        if name == "rule" and isinstance(value, dict):
            pairs.append((name, f"{value['file']}, line {value['line']}: {value['pattern']}"))
        elif name != "token":
            pairs.append((name, value))
    return pairs
