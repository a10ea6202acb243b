"""Whether a command that a page shows could be typed: its script is there and takes these arguments.

Nothing is run that a command would run: a script is stopped when it has read its arguments.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .markdown_blocks import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
OURS = ("llama_index_multimodal_rerank", "benchmarks", "training", "tests", "examples")
TOOLS = ("ruff", "mypy", "mkdocs")
"""Of the extras ``test`` and ``docs``; their arguments are theirs."""
XDIST = ("-n", "--dist")
"""Options of pytest-xdist, known where it is installed."""


class CommandError(Exception):
    """A command of a page could not be typed as it is."""


class _ArgumentsRead(Exception):  # noqa: N818 (nothing is wrong)
    pass


def is_ours(words: str) -> bool:
    """Whether code within a sentence is a command of this repository."""
    first = re.match(r"(?:[A-Z_]+=\S+ )*(\S+)(?: (\S+))?", words)
    if first is None:
        return False
    tool, argument = Path(first[1]).name, first[2] or ""
    if tool in ("python", "python3"):
        return argument in ("-m", "-c") or argument.startswith(OURS)
    return tool in ("pytest", *PROJECT.get("scripts", ())) or (first[1].startswith(".ci/") and bool(argument))


def read_commands(code: str) -> Iterator[list[str]]:
    """Yield the commands of a shell block, as lists of words. Where lines begin with ``$``, only those."""
    lines = code.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command.append(word)
            elif command:
                yield command
                command = []


class CommandChecker:
    """Checks commands within a test.

    Args:
        config: of the running pytest, whose options are those of the commands.
        monkeypatch: what is changed for a script is changed back by it.
    """

    def __init__(self, config: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.patch = config, monkeypatch

    def check(self, command: list[str], place: str = "") -> None:
        """Raise a CommandError, with its place, where a command cannot be typed or is none that is known."""
        try:
            self._check(command)
        except CommandError as error:
            raise CommandError(f"{place}: {error}" if place else str(error)) from error

    def _check(self, command: list[str]) -> None:
        while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
            command = command[1:]
        tool, *arguments = command
        name = Path(tool).name
        if re.fullmatch(r"python[0-9.]*", name):
            self._python(arguments)
        elif name == "pip":
            self._pip(arguments)
        elif name == "pytest":
            self._pytest(arguments)
        elif tool.startswith(".ci/"):
            self._file(tool)
            if arguments and arguments[0].startswith((".venv/bin/", "python")):
                self._check(arguments)
        elif name in PROJECT.get("scripts", {}):
            module, _, function = PROJECT["scripts"][name].partition(":")
            self._stop_at_arguments(
                [name, *arguments],
                lambda: getattr(importlib.import_module(module), function)(),
            )
        elif name not in TOOLS:
            raise CommandError(f"{name} is none of ours: say why it is not executed")

    def _python(self, arguments: list[str]) -> None:
        if arguments[0] == "-m":
            module, *rest = arguments[1:]
            if importlib.util.find_spec(module) is None:
                raise CommandError(f"there is no module {module}")
            if module.partition(".")[0] in OURS:
                run = lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)  # noqa: E731
                self._stop_at_arguments([module, *rest], run)
        else:
            script = self._file(arguments[0])
            if "ArgumentParser" not in script.read_text(encoding="utf-8"):  # it would run to its end
                if arguments[1:]:
                    raise CommandError(f"{arguments[0]} takes no arguments")
                return
            self.patch.syspath_prepend(script.parent)
            self._stop_at_arguments(arguments, lambda: runpy.run_path(str(script), run_name="__main__"))

    def _stop_at_arguments(self, argv: list[str], run: Callable[[], Any]) -> None:
        parse = argparse.ArgumentParser.parse_args

        def stop(self: argparse.ArgumentParser, *args: Any, **options: Any) -> None:
            parse(self, *args, **options)
            raise _ArgumentsRead

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            try:
                run()
            except _ArgumentsRead:
                return
            except SystemExit as error:
                raise CommandError(f"{shlex.join(argv)} ends with {error.code}") from error
        raise CommandError(f"{shlex.join(argv)} reads no arguments")

    def _pip(self, arguments: list[str]) -> None:
        if arguments[0] != "install":
            raise CommandError(f"pip {arguments[0]} is not known here")
        for option, value in zip(arguments, [*arguments[1:], ""], strict=False):
            if option in ("-c", "-r"):
                self._file(value)
        for word in arguments[1:]:
            asked = re.fullmatch(rf"(?:\.|{PROJECT['name']})\[(.*)\]", word)
            missing = set(asked[1].split(",")) - set(PROJECT["optional-dependencies"]) if asked else None
            if missing:
                raise CommandError(f"there is no extra {', '.join(sorted(missing))}")

    def _pytest(self, arguments: list[str]) -> None:
        markers = {line.partition(":")[0].partition("(")[0] for line in self.config.getini("markers")}
        for word, value in zip(arguments, [*arguments[1:], ""], strict=False):
            if word in XDIST and not self.config.pluginmanager.hasplugin("xdist"):
                continue
            if word.startswith("-"):
                try:
                    self.config.getoption(word.partition("=")[0])
                except ValueError as error:
                    raise CommandError(f"pytest has no option {word}") from error
            elif word.startswith("tests"):
                self._file(word.partition("::")[0])
            if word == "-m" and (unknown := set(re.findall(r"\w+", value)) - markers - {"and", "or", "not"}):
                raise CommandError(f"there is no marker {', '.join(sorted(unknown))}")

    def _file(self, name: str) -> Path:
        path = REPOSITORY / name
        if not path.is_file():
            raise CommandError(f"there is no file {name}")
        return path
