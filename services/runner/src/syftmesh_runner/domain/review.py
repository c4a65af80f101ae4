"""Static review: what a reviewer should look at in submitted code.

The sandbox holds whatever the code does; these findings only say where to look first. The code is not run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from syftmesh_runner.domain.finding import Finding, Severity

MAX_FINDINGS: Final = 500
LONG_LITERAL_CHARACTERS: Final = 500
MAX_SOURCE_BYTES: Final = 1 << 20

_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "IMPORT_NETWORK": (
        "socket",
        "ssl",
        "http",
        "urllib",
        "urllib3",
        "requests",
        "httpx",
        "aiohttp",
        "ftplib",
        "smtplib",
        "telnetlib",
        "xmlrpc",
        "socketserver",
        "grpc",
        "websockets",
        "paramiko",
        "asyncio",
        "dns",
        "poplib",
        "imaplib",
        "boto3",
    ),
    "IMPORT_PROCESS": ("subprocess", "multiprocessing", "pty", "signal", "concurrent", "threading", "psutil"),
    "IMPORT_NATIVE": ("ctypes", "cffi", "_ctypes", "mmap", "fcntl", "resource"),
    "IMPORT_FILES": ("os", "shutil", "tempfile", "glob", "posix", "nt"),
    "IMPORT_PICKLE": ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "_pickle"),
    "IMPORT_DYNAMIC": ("importlib", "imp", "runpy", "code", "codeop", "pkgutil", "zipimport", "builtins"),
    "IMPORT_ENCODING": ("base64", "binascii", "codecs", "zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile"),
}
_RULE_OF = {module: rule for rule, modules in _MODULES.items() for module in modules}
_MEANING: Final = {
    "IMPORT_NETWORK": "speaks to the network; the sandbox has none",
    "IMPORT_PROCESS": "starts processes or threads",
    "IMPORT_NATIVE": "calls native code",
    "IMPORT_FILES": "works on files and the environment",
    "IMPORT_PICKLE": "reads or writes pickled objects",
    "IMPORT_DYNAMIC": "loads code by name",
    "IMPORT_ENCODING": "encodes or compresses; results may carry more than they show",
}
_CALLS: Final = {
    "eval": "DYNAMIC_CODE",
    "exec": "DYNAMIC_CODE",
    "compile": "DYNAMIC_CODE",
    "__import__": "DYNAMIC_CODE",
    "getattr": "DYNAMIC_ATTRIBUTE",
    "setattr": "DYNAMIC_ATTRIBUTE",
    "globals": "DYNAMIC_ATTRIBUTE",
    "locals": "DYNAMIC_ATTRIBUTE",
    "vars": "DYNAMIC_ATTRIBUTE",
    "delattr": "DYNAMIC_ATTRIBUTE",
}
_METHODS_BY_RULE: Final = {
    "PROCESS_START": ("system", "popen", "fork", "execv", "execve", "spawn", "posix_spawn"),
    "FILE_WRITE": ("write_text", "write_bytes", "unlink", "rename"),
    "TABLE_WRITE": ("to_csv", "to_json", "to_parquet"),
    "PICKLE": ("to_pickle", "read_pickle"),
    "IMAGE_WRITE": ("savefig",),
    "LINK": ("symlink_to", "symlink", "hardlink_to"),
}
_METHODS: Final = {method: rule for rule, methods in _METHODS_BY_RULE.items() for method in methods}
_CALL_MEANING: Final = {
    "DYNAMIC_CODE": "runs text as code",
    "DYNAMIC_ATTRIBUTE": "reaches attributes by name",
    "PROCESS_START": "starts a process",
    "FILE_WRITE": "writes or removes a file",
    "TABLE_WRITE": "writes a table: look at what is in it",
    "PICKLE": "reads or writes pickled objects",
    "IMAGE_WRITE": "writes an image, which the gate cannot read",
    "LINK": "makes a link",
    "ENVIRONMENT": "reads the environment",
}
_INFO: Final = frozenset({"TABLE_WRITE", "ENVIRONMENT", "IMPORT_FILES"})


def review_code(files: Iterable[tuple[str, bytes]]) -> tuple[Finding, ...]:
    """Return what static review finds in the files of an archive, at most 500 findings."""
    found: list[Finding] = []
    for name, content in files:
        found += _review_file(name, content)
        if len(found) > MAX_FINDINGS:
            break
    return tuple(found[:MAX_FINDINGS])


def _review_file(name: str, content: bytes) -> Sequence[Finding]:
    if not name.endswith(".py"):
        try:
            content.decode()
        except UnicodeDecodeError:
            return [
                Finding(Severity.WARNING, "BINARY_FILE", name, text="not text: nobody can read it in review")
            ]
        return []
    if len(content) > MAX_SOURCE_BYTES:
        return [
            Finding(
                Severity.WARNING, "SOURCE_TOO_LARGE", name, text="too large to be reviewed by the machine"
            )
        ]
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [Finding(Severity.WARNING, "SOURCE_UNREADABLE", name, text="not readable as Python")]
    return list(dict.fromkeys(finding for node in ast.walk(tree) for finding in _review_node(name, node)))


def _review_node(file: str, node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _import(file, node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        yield from _import(file, node.lineno, node.module or "")
    elif isinstance(node, ast.Call):
        yield from _call(file, node)
    elif isinstance(node, ast.Attribute):
        if node.attr.startswith("__") and node.attr.endswith("__"):
            yield _finding(
                "DUNDER_ATTRIBUTE", file, node.lineno, f"uses the inner attribute {node.attr[:60]}"
            )
        elif node.attr in ("environ", "getenv"):
            yield _finding("ENVIRONMENT", file, node.lineno, _CALL_MEANING["ENVIRONMENT"])
    elif isinstance(node, ast.Constant) and _is_long(node.value):
        yield _finding("LONG_LITERAL", file, node.lineno, "a long literal, which may carry data or code")


def _is_long(value: object) -> bool:
    # Documentation has line ends; packed data has none.
    if isinstance(value, str):
        return "\n" not in value and len(value) > LONG_LITERAL_CHARACTERS
    return isinstance(value, bytes) and len(value) > LONG_LITERAL_CHARACTERS


def _import(file: str, line: int, module: str) -> Iterator[Finding]:
    rule = _RULE_OF.get(module.partition(".")[0])
    if rule is not None:
        yield _finding(rule, file, line, f"imports {module[:60]}, which {_MEANING[rule]}")


def _call(file: str, node: ast.Call) -> Iterator[Finding]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in _CALLS:
        rule = _CALLS[function.id]
        yield _finding(rule, file, node.lineno, f"{function.id}() {_CALL_MEANING[rule]}")
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name == "open":
        mode = _mode(node, first=isinstance(function, ast.Attribute))
        if mode is None or set(mode) & set("wax+"):
            shown = "a mode known only when it runs" if mode is None else f"mode {mode[:8]!r}"
            yield _finding("FILE_WRITE", file, node.lineno, f"opens a file with {shown}")
    elif isinstance(function, ast.Attribute) and function.attr in _METHODS:
        rule = _METHODS[function.attr]
        yield _finding(rule, file, node.lineno, f"{function.attr}() {_CALL_MEANING[rule]}")


def _mode(node: ast.Call, *, first: bool) -> str | None:
    """Return the mode of an open() call, None when it is not written out.

    The first argument is the mode of a path's method, the second that of the built-in function.
    """
    place = 0 if first and len(node.args) < 2 else 1
    given: ast.expr | None = node.args[place] if len(node.args) > place else None
    for keyword in node.keywords:
        if keyword.arg == "mode":
            given = keyword.value
    if given is None:
        return "r"
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def _finding(rule: str, file: str, line: int, text: str) -> Finding:
    return Finding(Severity.INFO if rule in _INFO else Severity.WARNING, rule, file, line, "", text)
