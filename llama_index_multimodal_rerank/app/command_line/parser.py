"""What can be written on the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ... import __version__

PROG = "multimodal-rerank"
COMMANDS = ("index", "search", "evaluate", "app")
RERANK = ("none", "listwise", "first_token")

_RERANKING = {
    "reranker": "names the model that reranks",
    "rerank_depth": "says how many pictures are reranked",
    "save_sheets": "saves what the reranker sees",
}
"""Options that mean nothing without ``--rerank``."""

_URI = "Milvus Lite file ending in .db, or address of a server, http://host:19530"


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with 2."""
        self.exit(2, f"{PROG}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def path(text: str) -> Path:
    """Return a path that was given; an empty one, of a variable that is not set, is refused."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def check_reranking(options: argparse.Namespace) -> None:
    """Refuse options of a reranking where none was asked for.

    Raises:
        ValueError: there are some; it names one.
    """
    if options.rerank == "none":
        for name, what in _RERANKING.items():
            if getattr(options, name, None) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} {what}: give --rerank, too, as listwise or first_token")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; ``command`` says what is to be done. Without a command, it is the page."""
    given = list(arguments)
    if not given or given[0] not in (*COMMANDS, "-h", "--help", "--version"):
        given = given if given and not given[0].startswith("-") else ["app", *given]
    return make_parser().parse_args(given)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneLineParser(
        prog=PROG,
        description="Search pictures with a picture and words. Without a command, the page is opened.",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_index(commands)
    _add_search(commands)
    _add_evaluate(commands)
    _add_app(commands)
    return parser


_Commands = argparse._SubParsersAction  # what add_subparsers returns has no public name


def _add_index(commands: _Commands[OneLineParser]) -> None:
    command = commands.add_parser(
        "index",
        help="bring a collection in step with a folder",
        description="Bring a collection in step with a folder of pictures: what is new or changed is "
        "embedded, what is gone is deleted, all else is left as it is. Pictures that cannot be "
        "read are named.",
    )
    command.add_argument("folder", type=path, metavar="FOLDER", help="folder of pictures")
    command.add_argument("--uri", required=True, help=_URI)
    command.add_argument(
        "--glob",
        help="which files to look at, such as '*.jpg' (default: all); rows of the others are deleted",
    )
    command.add_argument(
        "--no-recursive", action="store_true", help="leave subfolders out; rows of theirs are deleted"
    )
    command.add_argument(
        "--metadata",
        type=path,
        metavar="FILE",
        help="CSV or JSON lines with what is known of the pictures, to filter by: a column 'file', others "
        "(default: what the collection holds stays)",
    )
    command.add_argument(
        "--caption", metavar="KEY", help="column of --metadata that is embedded together with the picture"
    )
    _add_collection(command)
    _add_models(command, reranker=False)
    _add_output(command)


def _add_search(commands: _Commands[OneLineParser]) -> None:
    command = commands.add_parser(
        "search",
        help="find pictures by a picture, words, or both",
        description="Find pictures by a picture, words, or both. Without --uri and --images, in the demo's "
        "drawn catalogue.",
    )
    command.add_argument("--image", type=path, metavar="FILE", help="query picture")
    command.add_argument("--text", default="", help="words")
    command.add_argument("--top-k", type=int, default=9, metavar="N", help="pictures to find (default: 9)")
    command.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="'KEY OP VALUE'",
        help="what all pictures found meet, such as 'price<20'; may be given several times",
    )
    command.add_argument(
        "--rerank", choices=RERANK, default="none", help="how to rerank what was found (default: none)"
    )
    command.add_argument(
        "--save-sheets", type=path, metavar="FOLDER", help="save the sheets that the reranker saw here"
    )
    _add_source(command)
    _add_models(command)
    _add_output(command)


def _add_evaluate(commands: _Commands[OneLineParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure the search on labelled queries",
        description="Ask labelled queries, whole and with one side alone, and print how good "
        "the answers are.",
    )
    command.add_argument("file", type=path, metavar="FILE", help="labelled queries, in JSON lines")
    command.add_argument(
        "--query-images", type=path, metavar="FOLDER", help="query pictures (default: FILE's folder)"
    )
    command.add_argument(
        "--rerank", choices=RERANK, default="none", help="how to rerank what was found (default: none)"
    )
    command.add_argument("--rerank-depth", type=int, metavar="N", help="pictures to rerank (default: 9)")
    command.add_argument(
        "--no-ablations", action="store_true", help="ask queries of picture and words whole only"
    )
    _add_source(command)
    _add_models(command)
    _add_output(command)


def _add_app(commands: _Commands[OneLineParser]) -> None:
    command = commands.add_parser(
        "app",
        help="open the page",
        description="Open the page, at 127.0.0.1 alone. Without --uri and --images, on the demo's catalogue. "
        "Needs the extra 'app'.",
    )
    command.add_argument("--port", type=int, metavar="N", help="port (default: one that is free)")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    _add_source(command)
    _add_models(command)
    command.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("--uri", help=f"{_URI}; made by index, or by milvus_store")
    command.add_argument(
        "--images",
        type=path,
        metavar="FOLDER",
        help="folder of pictures to bring the collection in step with first; without --uri, it is kept in a "
        "cache folder",
    )
    _add_collection(command)


def _add_collection(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--collection", default="images", metavar="NAME", help="name of the collection (default: images)"
    )
    command.add_argument(
        "--token",
        default=os.environ.get("MILVUS_TOKEN", ""),
        help="user:password or API key, for servers (default: the environment variable MILVUS_TOKEN)",
    )


def _add_models(command: argparse.ArgumentParser, *, reranker: bool = True) -> None:
    command.add_argument(
        "--model",
        metavar="NAME",
        help="Visualized BGE or MagicLens: name, file or folder; or 'demo' (default: the one that filled the "
        "collection, else BAAI/bge-visualized)",
    )
    if reranker:
        command.add_argument(
            "--reranker",
            metavar="NAME",
            help="Phi-3 Vision: name or folder; or 'demo' (default: that of the demo for the demo's "
            "embedding, else microsoft/Phi-3-vision-128k-instruct)",
        )
    command.add_argument("--device", help="torch device, such as cpu or cuda:0 (default: the best)")
    command.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the models")


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, see docs/app.md")
    command.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show progress bars (default: on a terminal)",
    )
    command.add_argument(
        "--traceback", action="store_true", help="show where in the program an error came from"
    )


def shows_progress(options: argparse.Namespace) -> bool:
    """Tell whether progress bars are wanted."""
    wanted = getattr(options, "progress", None)
    return sys.stderr.isatty() if wanted is None else bool(wanted)
