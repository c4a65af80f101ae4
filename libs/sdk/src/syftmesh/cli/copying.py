"""The verb cp: between this machine and the mesh, or inside the mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import parse_path
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh.cli.file import existing
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.local import inside, read_file, write_file
from syftmesh.cli.output import size_text


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    verb(
        app,
        "cp",
        example="syftmesh cp results.csv alice@hospital.example/public/results.csv\n"
        "syftmesh cp -r alice@hospital.example/public ./copy",
    )(cp)


@dataclass(frozen=True, slots=True)
class Step:
    """One file to copy: from where, to where, and whether something is there already."""

    source: str
    target: str
    overwrites: bool
    revision: int


def cp(
    frame: Frame,
    source: Annotated[
        str, typer.Argument(help="A local path, or one of the mesh like alice@x.example/a.csv.")
    ],
    target: Annotated[str, typer.Argument(help="The same; a folder ends with / or is there.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="A folder with all in it.")] = False,
) -> None:
    """Copy a file; whatever it would replace is asked about first.

    A path is of the mesh when its first part is an e-mail address; write ./ in front of a local one that looks so.
    """
    here, there = not is_mesh_path(source), not is_mesh_path(target)
    if here and there:
        raise InvalidInput(
            "Both paths are of this machine.",
            reason="COPY_LOCAL",
            metadata={"source": quoted(source), "target": quoted(target)},
            hint="Use cp, or name a path of the mesh like alice@x.example/public/a.csv.",
        )
    with frame.client() as client:
        pairs = list((_local_pairs if here else _mesh_pairs)(client, source, target, recursive=recursive))
        steps = [_step(client, one, other, local=there) for one, other in pairs]
        replaced = [step.target for step in steps if step.overwrites]
        if replaced:
            more = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
            frame.confirm(f"Replace {replaced[0]}{more}?")
        items = [_copy(client, step, here=here, there=there, report=frame.detail) for step in steps]
    copied = sum(int(str(item["size_bytes"])) for item in items)
    names = items[0]["target"] if len(items) == 1 else f"{len(items)} files"
    frame.emit({"items": items}, f"Copied {names} ({size_text(copied)}).")


def is_mesh_path(text: str) -> bool:
    """Return whether `text` is meant as a path of the mesh: its first segment is an e-mail address."""
    try:
        normalise_principal(text.partition("/")[0])
    except InvalidInput:
        return False
    return True


def _local_pairs(_client: Any, source: str, target: str, *, recursive: bool) -> Iterable[tuple[str, str]]:
    place = Path(source).expanduser()
    if place.is_dir():
        _need_recursive(source, recursive=recursive)
        for file in sorted(place.rglob("*")):
            # A link could lead out of the folder that was named.
            if file.is_file() and not file.is_symlink():
                yield str(file), str(parse_path(f"{target.rstrip('/')}/{file.relative_to(place).as_posix()}"))
        return
    name = f"{target}{place.name}" if target.endswith("/") else target
    yield str(place), str(parse_path(name))


def _mesh_pairs(client: Any, source: str, target: str, *, recursive: bool) -> Iterable[tuple[str, str]]:
    is_local = not is_mesh_path(target)
    folder = target.endswith("/") or (is_local and Path(target).expanduser().is_dir())
    if recursive:
        base = str(parse_path(source, drop_trailing_slash=True))
        for view in client.files.list(source):
            relative = view.path.removeprefix(f"{base}/")
            if is_local:
                yield view.path, str(inside(Path(target).expanduser(), relative))
            else:
                yield view.path, str(parse_path(f"{target.rstrip('/')}/{relative}"))
        return
    path = parse_path(source)
    if is_local:
        place = Path(target).expanduser()
        yield str(path), str(inside(place, path.name) if folder else place)
    else:
        yield str(path), str(parse_path(f"{target}{path.name}" if folder else target))


def _step(client: Any, source: str, target: str, *, local: bool) -> Step:
    if local:
        return Step(source, target, Path(target).exists(), 0)
    view = client.files.stat(target)
    return Step(source, target, view is not None, 0 if view is None else view.revision)


def _copy(
    client: Any, step: Step, *, here: bool, there: bool, report: Callable[[str], None]
) -> dict[str, object]:
    data = read_file(Path(step.source)) if here else client.files.read(existing(client, step.source).path)
    item: dict[str, object] = {"source": step.source, "target": step.target, "size_bytes": len(data)}
    if there:
        write_file(Path(step.target), data)
    else:
        # Replaces exactly what was asked about, not what somebody wrote in between.
        record = client.files.write(step.target, data, expected_revision=step.revision)
        item["revision"] = getattr(record, "revision", None)
    report(f"{step.source} -> {step.target}")
    return item


def _need_recursive(source: str, *, recursive: bool) -> None:
    if not recursive:
        raise InvalidInput(
            f"{quoted(source)} is a folder.",
            reason="IS_A_FOLDER",
            metadata={"source": quoted(source)},
            hint="syftmesh cp -r SOURCE TARGET",
        )
