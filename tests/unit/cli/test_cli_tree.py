"""The whole tree of commands: help, global options, what is not built, plugins, start-up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer
    from syftmesh.cli.frame import Frame, verb
    from syftmesh.cli.plugin import PluginGroup
    from syftmesh.cli.root import build_app
    from syftmesh.cli.unbuilt import MISSING

    ROOT = typer.main.get_command(build_app())

GLOBAL = {"--json", "--profile", "--server", "--state", "--yes", "--verbose"}
BUILT = """
login logout whoami profiles ls stat cat cp rm doctor
site:init,ls,show site.token:create,ls,revoke keys:show,verify,devices rpc:call,result
acl:check,explain,show,set,readers group:create,ls,show,add,remove,rm
dataset:create,ls,show,rm audit:verify,query,export admin.user:revoke,reinstate,ls admin.keys:rotate
job:submit,run-mock,ls,show,wait,logs,cancel,results,code,approve,reject,release,withhold
fl:run,aggregate,ls,show,watch,cancel,results,serve,approve,code,deny,leave,revoke
"""


def _walk(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _walk(child, (*path, name))
    else:
        yield path, command


LEAVES = dict(_walk(ROOT))


def _built() -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for word in BUILT.split():
        group, _, names = word.partition(":")
        found |= {(*group.split("."), name) for name in names.split(",")} if names else {(group,)}
    return found


def test_the_tree_is_what_the_contract_names() -> None:
    assert set(LEAVES) == _built() | {tuple(line.split()) for line in MISSING}
    assert not _built() & {tuple(line.split()) for line in MISSING}


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_verb_has_help_an_example_and_the_global_options(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    context = click.Context(command, info_name="syftmesh " + " ".join(path))
    text = command.get_help(context)
    assert f"Example:\n    syftmesh {' '.join(path)}" in text, text
    assert command.help
    options = {option for parameter in command.params for option in parameter.opts}
    assert options >= GLOBAL
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_example_is_understood_by_the_parser(path: tuple[str, ...]) -> None:
    import shlex

    epilog = LEAVES[path].epilog or ""
    for line in epilog.splitlines()[2:]:
        words = shlex.split(line)[1 + len(path) :]
        LEAVES[path].make_context("x", words, resilient_parsing=False)


@pytest.mark.parametrize("line", MISSING)
def test_what_is_not_built_says_so_whatever_it_is_given(line: str, program: Any) -> None:
    done = program(*line.split(), "X", "--some", "option", "--json")
    assert done.code == 1
    assert done.err.startswith(f"error: UNIMPLEMENTED: 'syftmesh {line}' is not built yet: it needs ")
    assert done.data == b""
    assert LEAVES[tuple(line.split())].hidden


class Plugin:
    name = "extra"

    def __init__(self, register: Any) -> None:
        self._register = register

    def load(self) -> Any:
        if isinstance(self._register, Exception):
            raise self._register
        return self._register


def _plugins(monkeypatch: pytest.MonkeyPatch, *registers: Any) -> None:
    monkeypatch.setattr(PluginGroup, "plugins", staticmethod(lambda: [Plugin(r) for r in registers]))


def _extra(app: typer.Typer) -> None:
    def extra(frame: Frame) -> None:
        """Do more."""
        frame.emit({"extra": True}, "more")

    verb(app, "extra", example="syftmesh extra")(extra)


def test_a_plugin_adds_commands_with_the_global_options(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _plugins(monkeypatch, _extra)
    assert program("extra").out == "more\n"
    assert program("extra", "--json").json == {"extra": True}
    assert program("--help").code == 0
    assert "Do more." in capsys.readouterr().out


def test_a_broken_plugin_is_told_and_hides_no_other_command(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _plugins(monkeypatch, ImportError("no module"), _extra)
    assert program("extra").out == "more\n"
    done = program("up")
    assert done.code == 1
    assert done.err.startswith("error: PLUGIN_BROKEN: The commands of the plugin 'extra' cannot be loaded")
    assert "ImportError: no module" in program("up", "-v").err
    shown = program("--help")
    assert shown.code == 0
    assert "PLUGIN_BROKEN" in shown.err
    assert "Do more." in capsys.readouterr().out


def test_own_commands_load_no_plugin(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> Any:
        raise AssertionError("asked for plugins")

    monkeypatch.setattr(PluginGroup, "plugins", staticmethod(never))
    assert program("profiles", "--json").json == {"items": []}


def test_without_the_embedded_mesh_its_commands_say_what_to_install(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plugins(monkeypatch)
    done = program("up")
    assert done.code == 4
    assert done.err.startswith("error: COMMAND_MISSING: ")
    assert "hint: pip install syftmesh-standalone" in done.err


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom syftmesh.cli.__main__ import run\ncode = run(['--help'])\n"
        "heavy = {'pandas', 'numpy', 'sklearn', 'nats'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\nsys.exit(code)\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    took_s = time.monotonic() - began
    assert done.stderr.splitlines()[-1] == "[]"
    # The target is 0.7 s; a machine that is shared gets some slack here.
    assert took_s < 2.5


def test_the_program_tells_its_version(program: Any) -> None:
    from importlib.metadata import version

    done = program("--version")
    assert (done.code, done.out, done.err) == (0, f"syftmesh {version('syftmesh')}\n", "")


def test_the_installed_program_runs() -> None:
    program = str(Path(sys.executable).with_name("syftmesh"))
    done = subprocess.run(
        [program, "nothing-like-it"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


def test_a_reader_that_has_gone_ends_the_program_quietly(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    program = str(Path(sys.executable).with_name("syftmesh"))
    command = [program, "profiles", "--json", "--state", str(tmp_path)]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")
