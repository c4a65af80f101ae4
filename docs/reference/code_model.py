"""Python sources as far as the scan for reasons needs them: constants, imports, scopes, bindings, parameters."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: the file below the repository, and the line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Callable:
    """Something that takes parameters: each with its position, beyond all where it goes by keyword only."""

    module: str
    name: str
    is_method: bool
    parameters: dict[str, int]


@dataclass(slots=True)
class Module:
    """One module: its tree, the values of its constants, what it imports, and the parent of each node."""

    name: str
    file: str
    tree: ast.Module
    constants: dict[str, list[ast.expr]]
    imports: dict[str, tuple[str, str]]
    parents: dict[ast.AST, ast.AST]


def read_module(name: str, file: str, text: str) -> Module:
    """Parse a module."""
    tree = ast.parse(text)
    constants: dict[str, list[ast.expr]] = defaultdict(list)
    imports: dict[str, tuple[str, str]] = {}
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    constants[target.id].append(statement.value)
        elif (
            isinstance(statement, ast.AnnAssign)
            and statement.value
            and isinstance(statement.target, ast.Name)
        ):
            constants[statement.target.id].append(statement.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                imports[alias.asname or alias.name] = (node.module, alias.name)
    return Module(name, file, tree, constants, imports, parents)


def scope_of(module: Module, node: ast.AST) -> Function | None:
    """Return the function around `node`."""
    found: ast.AST | None = node
    while found is not None and not isinstance(found, Function):
        found = module.parents.get(found)
    return found


def bindings(scope: Function, name: str) -> Iterator[ast.expr]:
    """Every value that `name` is given inside `scope`; of a tuple target, the element where it can be told."""
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _bound(target, value, name)
            case (
                ast.AnnAssign(target=target, value=ast.expr() as value)
                | ast.NamedExpr(target=target, value=value)
            ):
                yield from _bound(target, value, name)
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(target)):
                    yield ast.copy_location(ast.Subscript(value=value, slice=ast.Constant(0)), value)


def _bound(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple):
        for position, part in enumerate(target.elts):
            if isinstance(part, ast.Name) and part.id == name:
                yield value.elts[position] if isinstance(value, ast.Tuple) else value


def is_table(value: ast.expr) -> bool:
    """Whether `value` is looked up: a dictionary, a subscript, or a call of `get`."""
    return isinstance(value, ast.Subscript | ast.Dict) or (
        isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "get"
    )


def parameters(scope: Function) -> set[str]:
    """Return the names of all parameters."""
    return {a.arg for a in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)}


def default_of(scope: Function, name: str) -> ast.expr | None:
    """Return the default of a parameter, None without one."""
    positional = [*scope.args.posonlyargs, *scope.args.args]
    pairs = [
        *zip(reversed(positional), reversed(scope.args.defaults), strict=False),
        *zip(scope.args.kwonlyargs, scope.args.kw_defaults, strict=True),
    ]
    return next((default for parameter, default in pairs if parameter.arg == name), None)


def arguments(node: Function, *, bound: bool) -> dict[str, int]:
    """Return the parameters of a call with their positions; `bound` leaves the first one out."""
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)][int(bound) :]
    found = {name: position for position, name in enumerate(names)}
    return found | {a.arg: sys.maxsize for a in node.args.kwonlyargs}


def fields(node: ast.ClassDef) -> dict[str, int]:
    """Parameters of a class: those of its __init__, else its annotated fields in order (a dataclass)."""
    for statement in node.body:
        if isinstance(statement, Function) and statement.name == "__init__":
            return arguments(statement, bound=True)
    annotated = [s.target for s in node.body if isinstance(s, ast.AnnAssign)]
    return {t.id: position for position, t in enumerate(annotated) if isinstance(t, ast.Name)}


def is_prose(value: ast.expr) -> bool:
    """Whether `value` is a sentence and no constant."""
    parts = value.values if isinstance(value, ast.JoinedStr) else [value]
    return any(isinstance(p, ast.Constant) and " " in str(p.value) for p in parts)


def is_static(node: Function) -> bool:
    """Whether a method takes no instance."""
    return any(last_name(d) == "staticmethod" for d in node.decorator_list)


def last_name(node: ast.AST) -> str:
    """Return `c` of `a.b.c`, empty where there is no name."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def text_attribute(node: ast.ClassDef, name: str) -> str:
    """Return the text that a class attribute is given, empty where it has none."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if (
                isinstance(target, ast.Name)
                and target.id == name
                and isinstance(statement.value, ast.Constant)
            ):
                return str(statement.value.value)
    return ""
