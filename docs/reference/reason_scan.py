"""Read from the code which error reasons it gives, and with which class of error.

The scan follows a reason from where it is spelled to where it is given away: constants of modules, tables, both
sides of `or` and of a conditional, and parameters of functions back to their callers. A reason that is put together
at run time cannot be followed; it is reported, so that no reason escapes the catalogue.

```
python docs/reference/reason_scan.py            # every reason with its classes and places
python docs/reference/reason_scan.py --missing  # what mesh.common.v1.ErrorReason lacks or has too much; exit 1
```
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from code_model import (
    Callable,
    Function,
    Module,
    Place,
    arguments,
    bindings,
    default_of,
    fields,
    is_prose,
    is_static,
    is_table,
    last_name,
    parameters,
    read_module,
    scope_of,
    text_attribute,
)

ROOT = Path(__file__).parents[2]
ENUM_FILE = ROOT / "protos" / "mesh" / "common" / "v1" / "error_reason.proto"
PREFIX = "ERROR_REASON_"
REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
CARRIERS = frozenset({"reason", "failure_reason", "error_reason"})
"""Names of parameters and attributes that hold a reason; what is read from such an attribute was born elsewhere."""
OTHER_VOCABULARY = frozenset(
    {
        "Answer",  # permissions: why a check was decided so (mesh.permissions.v1)
        "Decision",  # the same inside the engine
        "Verdict",  # the same, as far as it is shown
        "Fault",  # core: what is wrong with an audit chain, an enum of its own
        "RejectJobRequest",  # text of the owner for the submitter
        "WithholdJobRequest",  # the same
        "MockRun",  # SDK: how code ended on a mock
        "Finding",  # review and release: rules of the scanners
        "RunOutcome",  # executor: how a run ended, an enum of its own
        "Judgement",  # executor: the same, as read from a pod
    }
)
"""Types whose `reason` is not an error reason."""
OTHER_HOLDERS = frozenset({"decision", "finding", "fault"})
"""Variables of those types: their `reason` may not be raised as it is."""
NOT_RAISED = frozenset(
    {
        ("syftmesh_permissions.domain.clause", "give"),
        ("syftmesh_executor.output", "refuse"),
        ("syftmesh_executor.sandbox", "end"),
        ("syftmesh_executor.kubernetes.collect", "_refuse"),
        ("syftmesh_executor.kubernetes.run", "tell"),
        ("syftmesh_executor.pod.launch", "_end"),
        ("syftmesh.run", "cancel"),
        ("syftmesh.blocking_run", "cancel"),
    }
)
"""Functions, by module, whose parameter `reason` ends in a finding, an outcome of a run, or is text for people."""
FORWARDED = {
    ("syftmesh_client.inbox", "row"): "read back from the site's own database",
    (
        "syftmesh_client.problem",
        "(_text(found, name) for name in ('message', 'reason', 'hint'))",
    ): "from a reply",
    ("syftmesh_flower.grid_desk", "_constant(message.error.reason or '')"): "from a site's error reply",
    ("syftmesh_flower.launch.syftmesh_grid", "head"): "from the aggregator, which had it from a site",
    ("syftmesh_standalone.detach", "found['reason']"): "from the detached process, which raised it",
}
"""Expressions, by module, that hand on a reason born elsewhere in this product, with why they are believed."""
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "bind"})
_ROOT_CLASS = "MeshError"


@dataclass(slots=True)
class Found:
    """What the scan found.

    Attributes:
        reasons: Every reason with the places where it is spelled.
        codes: gRPC codes of the error classes that a reason is raised with; none when it is only part of a result.
        unknown: Places that give a reason which cannot be followed, with the expression.
    """

    reasons: dict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))
    codes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unknown: dict[Place, str] = field(default_factory=dict)


class Scan:
    """One pass over a set of files.

    Args:
        sources: Text of each module, by its dotted name and file.
    """

    def __init__(self, sources: dict[tuple[str, str], str]) -> None:
        self._modules = {name: read_module(name, file, text) for (name, file), text in sources.items()}
        self._classes = self._error_classes()
        self._enums = self._enum_classes()
        self._callables = self._signatures()
        self._sinks: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._found = Found()

    def run(self) -> Found:
        """Collect until no new parameter turns out to carry a reason."""
        for code, reason, place in self._classes.values():
            self._found.reasons[reason].add(place)
            self._found.codes[reason].add(code)
        while True:
            known = {sink: set(codes) for sink, codes in self._sinks.items()}
            self._found.unknown.clear()
            for module in self._modules.values():
                for call in ast.walk(module.tree):
                    if isinstance(call, ast.Call):
                        self._call(module, call)
            if known == self._sinks:
                return self._found

    def _call(self, module: Module, call: ast.Call) -> None:
        name = last_name(call.func)
        if name in OTHER_VOCABULARY or (name in _LOG_METHODS and isinstance(call.func, ast.Attribute)):
            return
        given = {k.arg: k.value for k in call.keywords if k.arg}
        if name in self._classes:
            if "reason" in given:
                self._take(module, given["reason"], {self._classes[name][0]})
            return
        targets = [t for t in self._callables.get(name, ()) if self._reaches(module, call, t)]
        for target in targets:
            for parameter, position in target.parameters.items():
                sink = (target.module, target.name, parameter)
                if sink[:2] in NOT_RAISED:
                    continue
                if parameter not in CARRIERS and sink not in self._sinks:
                    continue
                if parameter in given:
                    self._take(module, given[parameter], self._sinks[sink])
                elif position < len(call.args) and not any(isinstance(a, ast.Starred) for a in call.args):
                    self._take(module, call.args[position], self._sinks[sink])
        if not targets:
            for parameter in CARRIERS & given.keys():
                self._take(module, given[parameter], set())

    def _reaches(self, module: Module, call: ast.Call, target: Callable) -> bool:
        """Whether `call` may mean `target`: a name by its import, a method by its name alone."""
        if target.module == module.name:
            return True
        if isinstance(call.func, ast.Attribute):
            return target.is_method and not target.name.startswith("_")
        return (
            module.imports.get(call.func.id if isinstance(call.func, ast.Name) else "", ("", ""))[1]
            == target.name
        )

    def _take(self, module: Module, value: ast.expr, codes: set[str]) -> None:
        for reason, place in self._values(module, value, codes, depth=0):
            self._found.reasons[reason].add(place)
            self._found.codes[reason] |= codes

    def _values(
        self, module: Module, value: ast.expr, codes: set[str], *, depth: int
    ) -> Iterator[tuple[str, Place]]:
        """Yield the reasons that `value` may be, and note as unknown what cannot be followed."""
        if self._is_silent(module, value, codes):
            return
        place = Place(module.file, value.lineno)
        match value:
            case ast.Constant(value=str() as text) if REASON.fullmatch(text):
                yield text, place
            case ast.BoolOp(values=parts) | ast.Tuple(elts=parts):
                for part in parts:
                    yield from self._values(module, part, codes, depth=depth)
            case ast.IfExp(body=body, orelse=orelse):
                yield from self._values(module, body, codes, depth=depth)
                yield from self._values(module, orelse, codes, depth=depth)
            case ast.Call(func=ast.Name(id="str"), args=[inner]):
                yield from self._values(module, inner, codes, depth=depth)
            case ast.Call(func=ast.Attribute(value=table, attr="get"), args=[_, *default]):
                yield from self._table(module, table, codes, depth)
                for part in default:
                    yield from self._table(module, part, codes, depth)
            case ast.Subscript(value=table):
                yield from self._table(module, table, codes, depth)
            case ast.Name(id=name) if depth < 6:
                yield from self._name(module, value, name, codes, depth)
            case _:
                self._found.unknown[place] = ast.unparse(value)

    def _is_silent(self, module: Module, value: ast.expr, codes: set[str]) -> bool:
        """Whether `value` spells no reason here: it has none, or hands on one that is found where it was born."""
        match value:
            case ast.Constant(value=None | ""):
                return True
            case ast.Constant(value=str()) | ast.JoinedStr():
                return is_prose(value) and not codes  # the parameter of that name is text for people
            case ast.Attribute(value=ast.Name(id=name)) if name in self._enums:
                return not codes  # a vocabulary of its own, never raised
            case ast.Attribute(value=ast.Name(id=name)) if name in OTHER_HOLDERS:
                return False
            case ast.Attribute(attr=attribute) if attribute in CARRIERS:
                return True
        return (module.name, ast.unparse(value)) in FORWARDED

    def _name(
        self, module: Module, node: ast.expr, name: str, codes: set[str], depth: int
    ) -> Iterator[tuple[str, Place]]:
        scope = scope_of(module, node)
        if scope is not None:
            bound = list(bindings(scope, name))
            for value in bound:
                if is_table(value):
                    yield from self._table(module, value, codes, depth + 1)
                else:
                    yield from self._values(module, value, codes, depth=depth + 1)
            if name in parameters(scope):
                owner = module.parents.get(scope)
                named = (
                    owner.name if scope.name == "__init__" and isinstance(owner, ast.ClassDef) else scope.name
                )
                self._sinks[(module.name, named, name)] |= codes
                if (default := default_of(scope, name)) is not None:
                    yield from self._values(module, default, codes, depth=depth + 1)
                return
            if bound:
                return
        if name in module.constants:
            for value in module.constants[name]:
                yield from self._values(module, value, codes, depth=depth + 1)
        elif name in module.imports and module.imports[name][0] in self._modules:
            origin, original = module.imports[name]
            for value in self._modules[origin].constants.get(original, []):
                yield from self._values(self._modules[origin], value, codes, depth=depth + 1)
        else:
            self._found.unknown[Place(module.file, node.lineno)] = name

    def _table(
        self, module: Module, table: ast.expr, codes: set[str], depth: int
    ) -> Iterator[tuple[str, Place]]:
        """Every upper-case text in a table, wherever the table stands."""
        if (module.name, ast.unparse(table)) in FORWARDED:
            return
        match table:
            case ast.Name(id=name) if name in module.constants and depth < 6:
                for value in module.constants[name]:
                    yield from self._table(module, value, codes, depth + 1)
                return
            case ast.Call(func=ast.Attribute(value=inner, attr="get"), args=[_, *default]):
                for value in (inner, *default):
                    yield from self._table(module, value, codes, depth + 1)
                return
            case ast.Subscript(value=inner):
                yield from self._table(module, inner, codes, depth + 1)
                return
            case ast.Name():
                self._found.unknown[Place(module.file, table.lineno)] = ast.unparse(table)
                return
        skipped = set(table.keys) if isinstance(table, ast.Dict) else set()
        for node in ast.walk(table):
            if node in skipped or not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if REASON.fullmatch(node.value):
                yield node.value, Place(module.file, node.lineno)

    def _error_classes(self) -> dict[str, tuple[str, str, Place]]:
        """Class name -> code, default reason, place, of MeshError and everything below it."""
        nodes = [
            (m, n) for m in self._modules.values() for n in ast.walk(m.tree) if isinstance(n, ast.ClassDef)
        ]
        classes: dict[str, tuple[str, str, Place]] = {}
        for _ in range(4):
            for module, node in nodes:
                bases = [last_name(b) for b in node.bases]
                base = next((b for b in bases if b in classes), None)
                if base is None and node.name != _ROOT_CLASS:
                    continue
                code, reason, _place = classes[base] if base else ("INTERNAL", "INTERNAL", None)
                code = text_attribute(node, "code") or code
                reason = text_attribute(node, "default_reason") or reason
                classes[node.name] = (code, reason, Place(module.file, node.lineno))
        return classes

    def _enum_classes(self) -> set[str]:
        return {
            n.name
            for m in self._modules.values()
            for n in ast.walk(m.tree)
            if isinstance(n, ast.ClassDef)
            and any(last_name(b) in ("Enum", "StrEnum", "IntEnum") for b in n.bases)
        }

    def _signatures(self) -> dict[str, list[Callable]]:
        """Every function, method and class that can be called, by its name."""
        found: dict[str, list[Callable]] = defaultdict(list)
        for module in self._modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef) and node.name not in self._classes:
                    found[node.name].append(Callable(module.name, node.name, False, fields(node)))
                elif isinstance(node, Function) and node.name != "__init__":
                    is_method = isinstance(module.parents.get(node), ast.ClassDef)
                    parameters = arguments(node, bound=is_method and not is_static(node))
                    found[node.name].append(Callable(module.name, node.name, is_method, parameters))
        return found


def scan(root: Path = ROOT) -> Found:
    """Scan the code of all libraries and services below `root`."""
    sources = {}
    for group in ("libs", "services"):
        for source in sorted((root / group).glob("*/src")):
            for path in sorted(source.rglob("*.py")):
                name = ".".join(path.relative_to(source).with_suffix("").parts)
                sources[(name, str(path.relative_to(root)))] = path.read_text()
    return Scan(sources).run()


def catalogue(text: str) -> dict[str, tuple[int, str]]:
    """Return each value of the enum in `text` without its prefix: number and comment.

    Raises:
        ValueError: A value has no comment or another prefix.
    """
    values: dict[str, tuple[int, str]] = {}
    body = text[text.index("enum ErrorReason {") :]
    for comment, name, number in re.findall(r"((?:  //[^\n]*\n)*)  (\w+) = (\d+);", body):
        if not name.startswith(PREFIX) or not comment:
            raise ValueError(f"{name} has no comment, or a name without {PREFIX}")
        said = " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
        values[name.removeprefix(PREFIX)] = (int(number), said)
    return values


def main() -> None:
    """Print what the code gives, or what the catalogue lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--missing", action="store_true", help="compare with mesh.common.v1.ErrorReason")
    found = scan()
    if not parser.parse_args().missing:
        for reason, places in sorted(found.reasons.items()):
            codes = ",".join(sorted(found.codes[reason])) or "(in a result)"
            sys.stdout.write(f"{reason}  {codes}  {' '.join(sorted(map(str, places)))}\n")
    named = set(catalogue(ENUM_FILE.read_text())) - {"UNSPECIFIED"}
    problems = [
        f"missing: {r} ({min(map(str, found.reasons[r]))})" for r in sorted(found.reasons.keys() - named)
    ]
    problems += [f"not in the code: {r}" for r in sorted(named - found.reasons.keys())]
    problems += [
        f"cannot be followed: {place}: {text}" for place, text in sorted(found.unknown.items(), key=str)
    ]
    sys.stdout.writelines(line + "\n" for line in problems)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
