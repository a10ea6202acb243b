"""index, search and evaluate, run as from a shell, on drawn products with the demo's models."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from PIL import Image

from llama_index_multimodal_rerank.app.collections import Collection, CollectionSource
from llama_index_multimodal_rerank.app.command_line import search_command
from llama_index_multimodal_rerank.app.command_line.main import main
from llama_index_multimodal_rerank.app.models import ModelChoice
from llama_index_multimodal_rerank.app.search import SearchRequest, search
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.milvus.lite_process import close_moved

ROOT = Path(__file__).parents[3]
CPU = ["--device", "cpu", "--dtype", "float32"]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line."""

    def run_main(*arguments: str | Path) -> Done:
        close_moved()  # databases of other tests whose folder is gone are not this command's warning
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Done(code, *capsys.readouterr())

    return run_main


def documented_keys(command: str) -> set[str]:
    """The keys that docs/app.md names for a command's JSON."""
    page = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    section = re.search(rf"^#+ `{command}` as JSON$(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    return set(re.findall(r"^\| `([^`]+)`", section[1], re.MULTILINE))


def keys(values: Any, prefix: str = "") -> set[str]:
    """The keys of JSON values, as docs/app.md writes them; those of metadata are the user's."""
    found = set()
    for key, value in values.items():
        name = f"{prefix}{key}"
        found.add(name)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found |= keys(value[0], f"{name}[].")
        elif isinstance(value, dict) and key not in ("metadata", "seconds", "protocol", "figures", "groups"):
            found |= keys(value, f"{name}.")
    return found


def test_index_embeds_what_changed(run: Run, shop: Path, tmp_path: Path, embedded: list[int]) -> None:
    folder, uri = tmp_path / "photos", tmp_path / "c.db"
    shutil.copytree(shop / "photos", folder)
    (folder / "bad\nname.png").write_text("no picture")
    (folder / "notes.txt").write_text("of no interest")
    index = ["index", folder, "--uri", uri, "--json", *CPU]
    first = run(*index, "--model", "demo")
    assert first.code == 0
    assert (len(first.json["added"]), first.json["pictures"], sum(embedded)) == (9, 9, 9)
    assert [Path(each["path"]).name for each in first.json["unreadable"]] == ["bad\nname.png"]
    assert first.err.count("\n") == 1  # the bad file's line, and no other
    assert re.match(r"multimodal-rerank: warning: left out .*bad.{1,3}nname.png", first.err)
    assert keys(first.json) == documented_keys("index")

    again = run(*index)  # without --model: the collection knows
    assert (again.json["added"], again.json["changed"], again.json["unchanged"]) == ([], [], 9)
    assert sum(embedded) == 9

    (folder / "dots-mug.png").unlink()
    draw_query_picture("zebra", seed=4).save(folder / "dots-shoe.png")
    third = run(*index).json
    assert [Path(path).name for path in third["changed"]] == ["dots-shoe.png"]
    assert [Path(path).name for path in third["removed"]] == ["dots-mug.png"]
    assert (third["unchanged"], third["pictures"], sum(embedded)) == (7, 8, 10)


def test_index_with_metadata_and_captions(run: Run, shop: Path, tmp_path: Path, embedded: list[int]) -> None:
    uri = tmp_path / "c.db"
    table = tmp_path / "prices.csv"
    table.write_text((shop / "prices.csv").read_text() + "gone.png,a hat,5\n")
    index = ["index", shop / "photos", "--uri", uri, "--metadata", table, *CPU]
    first = run(*index, "--model", "demo")
    assert first.code == 0
    assert first.out.startswith(f"{uri}: 9 pictures of the folder (9 new, 0 changed, ")
    assert "1 of 10 lines of" in first.err
    assert "'gone.png'" in first.err
    found = run("search", "--uri", uri, "--text", "a mug", "--filter", "price<20", "--json", *CPU).json
    assert sorted(hit["metadata"]["price"] for hit in found["results"]) == [0, 10]
    assert found["results"][0]["title"] == found["results"][0]["metadata"]["title"]

    table.write_text(table.read_text().replace(",80", ",85"))
    before = sum(embedded)
    assert "0 changed, 1 with other metadata" in run(*index).out
    assert sum(embedded) == before
    assert "9 changed" in run(*index, "--caption", "title").out
    assert sum(embedded) == before + 9


def test_what_index_wrote_stays_when_its_folder_is_searched(
    run: Run, shop: Path, tmp_path: Path, embedded: list[int]
) -> None:
    uri = tmp_path / "c.db"
    told = ["--metadata", shop / "prices.csv", "--caption", "title"]
    assert run("index", shop / "photos", "--uri", uri, *told, "--model", "demo", *CPU).code == 0
    cheap = ["--text", "a mug", "--filter", "price<20", "--json", *CPU]
    found = run("search", "--uri", uri, "--images", shop / "photos", *cheap).json
    assert sorted(hit["metadata"]["price"] for hit in found["results"]) == [0, 10]
    before = sum(embedded)
    assert "9 as they were" in run("index", shop / "photos", "--uri", uri, *CPU).out
    assert sum(embedded) == before
    assert [hit["title"] for hit in run("search", "--uri", uri, *cheap).json["results"]] == [
        hit["title"] for hit in found["results"]
    ]


def test_a_folder_without_pictures_is_an_error(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "notes.txt").write_text("to be sorted")
    for command in (
        ["index", folder, "--uri", tmp_path / "c.db"],
        ["search", "--images", folder, "--text", "a mug"],
    ):
        done = run(*command, "--model", "demo", *CPU)
        assert (done.code, done.out) == (2, "")
        assert f"error: no picture was found in '{folder}'\n" in done.err
    (folder / "a.png").write_text("no picture")
    done = run("index", folder, "--uri", tmp_path / "c.db", "--model", "demo", *CPU)
    assert f"no picture was found in '{folder}'; 1 file cannot be read: a.png (it is " in done.err


def test_a_folder_by_a_link_and_by_its_own_path(run: Run, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shop / "photos")
    for folder in (tmp_path / "link", shop / "photos", tmp_path / "link"):
        found = run("search", "--images", folder, "--text", "a mug", "--model", "demo", "--json", *CPU).json
        paths = [hit["path"] for hit in found["results"]]
        assert sorted(paths) == sorted(str(path) for path in folder.iterdir())


def test_index_shows_progress_where_it_is_wanted(run: Run, shop: Path, tmp_path: Path) -> None:
    index = ["index", shop / "photos", "--uri", tmp_path / "c.db", "--model", "demo", *CPU]
    assert "Embedding" in run(*index, "--progress").err
    assert run(*index, "--no-progress").err == ""
    assert run(*index).err == ""  # no terminal


@pytest.fixture
def uri(run: Run, shop: Path, tmp_path: Path) -> Path:
    """A collection of the shop."""
    uri = tmp_path / "shop.db"
    options = ["--metadata", shop / "prices.csv", "--model", "demo"]
    assert run("index", shop / "photos", "--uri", uri, *options, *CPU).code == 0
    return uri


def test_search_prints_a_table(run: Run, shop: Path, uri: Path, collection: Collection) -> None:
    query = ["--image", shop / "leopard.png", "--text", "a mug with this"]
    done = run("search", "--uri", uri, *query, "--top-k", "3", *CPU)
    expected = search(collection, SearchRequest("a mug with this", shop / "leopard.png", top_k=3))
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["rank", "score", "file", "title"]
    assert [(line[0], line[1], line[2]) for line in lines[1:4]] == [
        (str(hit.rank), f"{hit.score:.3f}", hit.file) for hit in expected.hits
    ]
    assert lines[1][3:] == ["the", "red", "leopard", "mug"]
    assert lines[4][0] == "Seconds:"
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("rerank", ["none", "listwise"])
def test_search_as_json(run: Run, shop: Path, uri: Path, rerank: str, tmp_path: Path) -> None:
    query = ["--image", shop / "leopard.png", "--text", "a mug with this", "--filter", "price<60"]
    sheets = [] if rerank == "none" else ["--save-sheets", tmp_path / "sheets"]
    done = run("search", "--uri", uri, *query, "--rerank", rerank, *sheets, "--json", *CPU)
    assert (done.code, done.out.isascii()) == (0, True)
    found = done.json
    named = documented_keys("search")
    assert keys(found) == (named - {"audit.word", "audit.text"} if rerank == "none" else named)
    assert found["format"] == 1
    assert found["query"] == {
        "text": "a mug with this",
        "image": str(shop / "leopard.png"),
        "filters": ["price<60"],
        "top_k": 9,
    }
    assert [hit["rank"] for hit in found["results"]] == [1, 2, 3, 4, 5, 6]
    assert sorted(hit["was"] for hit in found["results"]) == [1, 2, 3, 4, 5, 6]
    nearest = next(hit for hit in found["results"] if hit["was"] == 1)
    assert Path(nearest["path"]) == shop / "photos" / "leopard-mug.png"
    if rerank == "none":
        assert (found["reranker"], found["audit"], found["sheets"]) == (None, None, [])
        assert [hit["was"] for hit in found["results"]] == [1, 2, 3, 4, 5, 6]
    else:
        assert (found["reranker"], found["audit"]["word"]) == ("demo", "clean")
        assert found["reason"]
        assert len(found["sheets"]) == 2  # that of the list, and that of the reason
        assert all(Image.open(sheet).size[0] % 336 == 0 for sheet in found["sheets"])


def test_search_with_a_reranker_says_why(run: Run, shop: Path, uri: Path) -> None:
    query = ["--image", shop / "leopard.png", "--text", "a mug with this", "--top-k", "3"]
    out = run("search", "--uri", uri, *query, "--rerank", "first_token", *CPU).out
    assert out.splitlines()[0].split() == ["rank", "was", "score", "retrieved", "file", "title"]
    for begin in (
        "The reranker saw in the query: ",
        "Its reason: ",
        "Audit: The 3 pictures are in the order",
    ):
        assert re.search(f"^{begin}", out, re.MULTILINE)


def test_search_of_a_folder_is_kept(run: Run, shop: Path, cache: Path, embedded: list[int]) -> None:
    query = ["search", "--images", shop / "photos", "--model", "demo", "--text", "a shoe", *CPU]
    assert run(*query).code == 0
    assert run(*query).code == 0
    assert sorted(embedded) == [1, 1, 9]
    assert [path.suffix for path in cache.iterdir()] == [".db"]


def test_nothing_found_says_why(run: Run, uri: Path) -> None:
    search = ["search", "--uri", uri, "--text", "a mug", *CPU]
    unknown = run(*search, "--filter", "prize<20")
    assert unknown.code == 0
    assert "no picture has 'prize'; there are: file_name," in unknown.out
    assert run(*search, "--filter", "price<0", "--json").json["note"] == (
        "Nothing was found: no picture meets the filters."
    )


def test_evaluate(run: Run, shop: Path, uri: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    lines = [
        {"image": "leopard.png", "text": "a mug with this", "relevant": ["leopard-mug.png"]},
        {"text": "a shoe with dots", "relevant": ["dots-shoe.png"], "groups": ["words"]},
    ]
    queries.write_text("\n".join(map(json.dumps, lines)))
    evaluate = ["evaluate", queries, "--query-images", shop, "--uri", uri, *CPU]
    done = run(*evaluate, "--rerank", "first_token", "--rerank-depth", "3", "--json")
    assert (done.code, "multimodal-rerank" in done.err) == (0, False)
    assert keys(done.json) == documented_keys("evaluate")
    assert (done.json["protocol"]["queries"], done.json["protocol"]["rerank_depth"]) == (2, 3)
    assert list(done.json["groups"]) == ["words"]
    table = run(*evaluate, "--no-ablations").out
    assert "| composed | retrieved | 1 | 1.000" in table
    assert "image only" not in table

    lines[1]["relevant"] = ["dots-shoo.png"]
    queries.write_text("\n".join(map(json.dumps, lines)))
    wrong = run(*evaluate)
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "query 'line-2': 'dots-shoo.png' in 'relevant' is no picture of the collection" in wrong.err


ERRORS: dict[str, tuple[list[str], str]] = {
    "nothing": (["search"], "give --image, --text, or both"),
    "no collection": (
        ["search", "--text", "x", "--uri", "none.db"],
        "there is no collection 'images' at 'none.db'",
    ),
    "no database": (["search", "--text", "x", "--uri", "text.db"], "no Milvus Lite database"),
    "no server": (["search", "--text", "x", "--uri", "http://127.0.0.1:9"], "cannot open Milvus at"),
    "no address": (["search", "--text", "x", "--uri", "x.sqlite"], "uri must be a file name ending in '.db'"),
    "no query picture": (
        ["search", "--image", "none.png"],
        "cannot read the picture 'none.png': no such file",
    ),
    "a text as a picture": (["search", "--image", "text.db"], "it is not a picture in a known format"),
    "no filter": (
        ["search", "--text", "x", "--filter", "price"],
        "'price' is no filter: write key, operator",
    ),
    "no number": (["search", "--text", "x", "--top-k", "0"], "must be 1 to 1000, got 0"),
    "sheets of nothing": (["search", "--text", "x", "--save-sheets", "f"], "give --rerank, too"),
    "a reranker of nothing": (["search", "--text", "x", "--reranker", "demo"], "give --rerank, too"),
    "a reranker of no queries": (["evaluate", "text.db", "--reranker", "demo"], "give --rerank, too"),
    "a depth of nothing": (["evaluate", "text.db", "--rerank-depth", "3"], "give --rerank, too"),
    "sheets into a file": (
        ["search", "--text", "x", "--uri", "none.db", "--rerank", "listwise", "--save-sheets", "text.db"],
        "--save-sheets needs a folder, got the file 'text.db'",
    ),
    "no folder": (["search", "--text", "x", "--images", "none"], "no such folder: 'none'"),
    "no folder to index": (["index", "none", "--uri", "c.db"], "no such folder"),
    "no metadata": (["index", ".", "--uri", "c.db", "--metadata", "none.csv"], "no such file: 'none.csv'"),
    "no column": (
        ["index", ".", "--uri", "c.db", "--metadata", "t.csv", "--caption", "x"],
        "has no column 'x'",
    ),
    "a table of other files": (
        ["index", ".", "--uri", "c.db", "--metadata", "t.csv"],
        "none of the 1 lines of t.csv names a file of the folder, such as 'a.png'",
    ),
    "nobody's folder": (["index", "~nobody-at-all/x", "--uri", "c.db"], "no such folder: '"),
    "captions of nothing": (["index", ".", "--uri", "c.db", "--caption", "x"], "a column of --metadata"),
    "no model": (["index", ".", "--uri", "c.db", "--model", "no/model"], "There is no model 'no/model'"),
    "no such device": (
        ["index", ".", "--uri", "c.db", "--model", "demo", "--device", "abacus"],
        "device='abacus' cannot be used",
    ),
    "no queries": (["evaluate", "none.jsonl"], "no such file: 'none.jsonl'"),
    "wrong queries": (["evaluate", "text.db"], "line 1: no JSON"),
    "no depth": (
        ["evaluate", "text.db", "--rerank", "listwise", "--rerank-depth", "0"],
        "must be 1 or more, got 0",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line_and_nothing_is_made(
    arguments: list[str],
    said: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "text.db").write_text("a text\nof two lines")
    (work / "t.csv").write_text("file,price\na.png,3\n")
    there = sorted(work.rglob("*"))
    done = run(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("multimodal-rerank: error: ")
    assert said in done.err
    assert sorted(work.rglob("*")) == there
    assert not cache.exists()


def test_bugs_are_one_line_too_unless_one_wants_to_see_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: object) -> int:
        raise KeyError("a\nb")

    monkeypatch.setattr(search_command, "run", broken)
    assert run("search") == (2, "", "multimodal-rerank: error: KeyError: 'a\\nb'\n")
    with pytest.raises(KeyError):
        run("search", "--traceback")


def test_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_command, "run", interrupted)
    assert run("search") == (130, "", "multimodal-rerank: interrupted\n")


def test_warnings_are_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(options: object) -> int:
        logging.getLogger("llama_index_multimodal_rerank.reranking.x").warning("one\ntwo")
        logging.getLogger("llama_index_multimodal_rerank.data.folders").warning("Skipped 'x'")
        return 0

    monkeypatch.setattr(search_command, "run", warning)
    assert run("search") == (0, "", "multimodal-rerank: warning: one\\ntwo\n")
    assert logging.getLogger("llama_index_multimodal_rerank").handlers == []


def test_the_page_needs_gradio(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for arguments in ([], ["app"]):
        done = run(*arguments)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert 'pip install "llama-index-multimodal-rerank[app]"' in done.err


def test_the_page_is_handed_what_was_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    gradio, page = ModuleType("gradio"), ModuleType("page")
    gradio.__spec__ = ModuleSpec("gradio", None)
    page.launch = lambda *args, **kwargs: asked.append((args, kwargs))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.setitem(sys.modules, "llama_index_multimodal_rerank.app.page", page)
    assert (
        run("--uri", "c.db", "--collection", "shop", "--model", "demo", "--port", "7001", "--open").code == 0
    )
    assert asked == [
        ((CollectionSource("c.db", name="shop"), ModelChoice("demo")), {"port": 7001, "open_browser": True})
    ]
    assert "--port must be 1 to 65535, got 70000" in run("app", "--port", "70000").err
