"""What can be written on the command line, and what is said of the rest."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_index_multimodal_rerank.app.command_line.parser import COMMANDS, make_parser, parse

ROOT = Path(__file__).parents[3]


def test_without_a_command_it_is_the_page() -> None:
    assert parse([]).command == "app"
    options = parse(["--images", "photos", "--port", "7000"])
    assert (options.command, options.images, options.port) == ("app", Path("photos"), 7000)


def test_a_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "user:secret")
    assert parse(["search", "--text", "x"]).token == "user:secret"
    assert parse(["search", "--text", "x", "--token", "other"]).token == "other"
    assert "secret" not in make_parser().format_help()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch"], "invalid choice: 'serch'"),
        (["index"], "required: FOLDER, --uri"),
        (["index", "photos"], "required: --uri"),
        (["search", "--top-k", "x"], "invalid int value: 'x'"),
        (["search", "--rerank", "best"], "invalid choice: 'best'"),
        (["evaluate"], "required: FILE"),
        (["index", "", "--uri", "c.db"], "argument FOLDER: the path is empty"),
        (["search", "--images", "", "--text", "x"], "argument --images: the path is empty"),
        (["--share"], "unrecognized arguments: --share"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("multimodal-rerank: error: ")
    assert said in err
    assert err.count("\n") == 1


def test_help_comes_without_torch_and_llama_index() -> None:
    code = (
        "import sys\n"
        "from llama_index_multimodal_rerank.app.command_line.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as ended:\n    assert ended.code == 0\n"
        "heavy = ('torch', 'transformers', 'pymilvus', 'llama_index.core')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in COMMANDS:
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)


def test_the_module_runs() -> None:
    from llama_index_multimodal_rerank import __version__

    module = [sys.executable, "-m", "llama_index_multimodal_rerank.app", "--version"]
    done = subprocess.run(module, capture_output=True, text=True, check=True)
    assert done.stdout == f"multimodal-rerank {__version__}\n"


@pytest.mark.parametrize(("closed", "options", "code"), [(">&-", "--version", 0), ("2>&-", "search", 2)])
def test_closed_streams(closed: str, options: str, code: int) -> None:
    command = f"'{sys.executable}' -m llama_index_multimodal_rerank.app {options} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_the_console_script_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (target,) = re.findall(r'^multimodal-rerank = "(.+)"$', text, re.MULTILINE)
    assert callable(importlib.metadata.EntryPoint("multimodal-rerank", target, "console_scripts").load())


def test_every_option_is_documented() -> None:
    page = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(--[a-z-]+)", page))
    parser = make_parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    options = {
        name
        for command in commands.values()
        for action in command._actions
        for name in action.option_strings
        if name.startswith("--") and action.help != "==SUPPRESS=="
    }
    assert options - documented - {"--help"} == set()
    assert documented - options - {"--version"} == set()
