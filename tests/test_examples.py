"""Every example runs from nothing, offline, and prints what it promises."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image
from support import magiclens_golden, signals
from support.drawing import draw_picture
from support.machine import run_script
from support.tiny_phi3_vision import write_folder

EXAMPLES = Path(__file__).parent.parent / "examples"
HIT = re.compile(r"^  (\d)\. (\d\.\d{3})  (\S+)$", re.MULTILINE)
FOUND = re.compile(r"^  (\d)\. (\d\.\d{3})  (.+)$", re.MULTILINE)
MOVE = re.compile(r"^  (\d)\. (\d\.\d{3})  (.+?) +(\d\.\d{3})  (.+?)  \(was (\d)\)$", re.MULTILINE)


def run(name: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*run_script(), str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "no-models")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run an example that ends with an error; return what it says, and see that it did nothing before."""

    def run_here(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-models"))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        assert ended.value.code not in (0, None)
        assert not (tmp_path / "example-output").exists()
        return f"{capsys.readouterr().err}{ended.value.code}"

    return run_here


def test_quickstart(tmp_path: Path, catalogue: Path) -> None:
    shutil.copytree(catalogue, tmp_path / "example-output" / "catalogue")
    output = run("quickstart.py", tmp_path)
    assert "Indexed 900 pictures, skipped 0. Embedded now: 900." in output
    assert "Models called 'demo' are tiny" in output
    lists = [MOVE.findall(text) for text in output.split("\n[")[1:]]
    assert len(lists) == 3
    for rows in lists:
        assert [row[0] for row in rows] == list("123456789")
        assert sorted(row[5] for row in rows) == list("123456789")  # nothing was lost
        for column in (1, 3):
            scores = [float(row[column]) for row in rows]
            assert scores == sorted(scores, reverse=True)
    # No phone case with leopard print was trained on, and no umbrella with stripes.
    assert "[example-output/queries/leopard.png] + 'a phone case with this'" in output
    assert lists[0][0][4].endswith(" leopard phone case")
    assert lists[1][0][4].endswith(" stripes umbrella")
    assert lists[2][0][4].endswith(" brick backpack")
    assert output.count("  Its reason: #") == 3

    picture = Image.open(tmp_path / "example-output" / "results.png")
    assert picture.height > picture.width > 900  # two boards of nine pictures beside each query
    report = (tmp_path / "example-output" / "report.html").read_text()
    assert report.count("<section>") == 3
    assert report.count('src="data:image/jpeg;base64,') == 3 * (1 + 9 + 9)
    assert not re.search(r'(src|href)="(?!data:)', report)
    assert report.count("each of the 9 pictures once.") == 3
    assert "Phi3VisionRerank, model demo, strategy listwise" in report


def test_quickstart_without_a_reranker(tmp_path: Path, catalogue: Path) -> None:
    shutil.copytree(catalogue, tmp_path / "example-output" / "catalogue")
    output = run("quickstart.py", tmp_path, "--reranker", "")
    lists = [FOUND.findall(text) for text in output.split("\n[")[1:]]
    assert [[row[0] for row in rows] for rows in lists] == [list("123456789")] * 3
    assert any(row[2].endswith(" leopard phone case") for row in lists[0])
    picture = Image.open(tmp_path / "example-output" / "results.png")
    assert picture.width > picture.height > 600  # one row of pictures a query
    report = (tmp_path / "example-output" / "report.html").read_text()
    assert report.count('src="data:image/jpeg;base64,') == 3 * (1 + 9)
    assert "reranked" not in report.lower()


def test_quickstart_on_the_users_own_folder_and_model(
    tmp_path: Path, pictures: list[Path], tiny_checkpoint: Path
) -> None:
    (pictures[0].parent / "broken.png").write_bytes(b"no picture")
    output = run(
        "quickstart.py",
        tmp_path,
        *("--images", str(pictures[0].parent), "--model", str(tiny_checkpoint)),
        *("--query-image", str(pictures[3]), "--query-text", "", "--top-k", "2", "--uri", "mine.db"),
        *("--reranker", str(write_folder(tmp_path / "phi3")), "--save-sheets", "sheets"),
    )
    assert "Indexed 6 pictures, skipped 1. Embedded now: 6." in output
    assert "broken.png': it is damaged" in output or "broken.png': it is not a picture" in output
    rows = MOVE.findall(output)
    assert rows[0][:3] == ("1", "1.000", "picture-3.png")
    assert sorted(row[5] for row in rows) == ["1", "2"]
    places = {row[0]: row[2] for row in rows}
    assert all(row[4] == places[row[5]] for row in rows)  # who "was 2" was second on the left
    assert "Its reason: " in output
    assert len(list((tmp_path / "sheets").iterdir())) == 1
    report = (tmp_path / "example-output" / "report.html").read_text()
    assert report.count(" was 1</span>") == 1
    assert "each of the 2 pictures once." in report
    assert (tmp_path / "mine.db").exists()
    assert "demo" not in output


def test_quickstart_with_magiclens(tmp_path: Path, pictures: list[Path]) -> None:
    output = run(
        "quickstart.py",
        tmp_path,
        *("--images", str(pictures[0].parent), "--query-image", str(pictures[3]), "--top-k", "2"),
        *("--model", str(magiclens_golden.write_folder(tmp_path / "magiclens", magiclens_golden.TINY[0]))),
        *("--reranker", "", "--uri", "mine.db"),
    )
    assert "Indexed 6 pictures, skipped 0." in output
    assert "1. 1.000  picture-3.png" in output  # a picture without words is the catalogue's own


def test_quickstart_embeds_what_changed_for_the_next_question(
    tmp_path: Path, pictures: list[Path], tiny_checkpoint: Path
) -> None:
    images, query = ("--images", str(pictures[0].parent)), ("--query-image", str(pictures[5]))
    model = ("--model", str(tiny_checkpoint))
    assert "Indexed 6 pictures, skipped 0. Embedded now: 6." in run(
        "quickstart.py", tmp_path, *images, *query, *model
    )
    shutil.copy(pictures[1], pictures[0])
    pictures[2].unlink()
    output = run("quickstart.py", tmp_path, *images, "--query-text", "another question", *model)
    assert "Indexed 5 pictures, skipped 0. Embedded now: 1." in output
    assert {row[2] for row in FOUND.findall(output)} == {
        f"picture-{number}.png" for number in (0, 1, 3, 4, 5)
    }
    # Another folder, another collection.
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(pictures[3], other / "one.png")
    output = run("quickstart.py", tmp_path, "--images", str(other), *query, *model)
    assert [row[2] for row in FOUND.findall(output)] == ["one.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "."], "--images needs --query-image, --query-text or both"),
        (["--images", ".", "--query-text", "a"], "'demo' knows drawings like those of the catalogue only"),
        (["--images", "no", "--query-text", "a", "--model", "demo"], "--images no: there is no such folder"),
        (["--query-image", "no.png"], "argument --query-image: no.png: no such file"),
        (["--query-image", "text.png"], "argument --query-image: text.png: it is not a picture"),
        (["--top-k", "0"], "--top-k must be at least 1, got 0"),
        (["--model", "BAAI/bge-visualized"], "hf download BAAI/bge-visualized"),
        (["--reranker", "microsoft/Phi-3.5-vision-instruct"], "could not be downloaded"),
    ],
)
def test_quickstart_says_what_is_wrong_before_it_begins(
    arguments: list[str], said: str, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "text.png").write_text("a text")
    assert said in refused("quickstart.py", *arguments)


@pytest.mark.parametrize("name", ["evaluate.py", "adaptive_rerank.py"])
def test_a_model_that_cannot_be_had_is_said_before_anything_is_drawn(name: str, refused: Refused) -> None:
    assert "could not be downloaded" in refused(name, "--reranker", "microsoft/Phi-3.5-vision-instruct")


def test_amazon_reviews_says_what_is_wrong_before_it_begins(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "meta.jsonl").write_text("")
    arguments = ("meta.jsonl", "--hosts", "shop.invalid", "--query-image")
    assert "argument --query-image: no.png: no such file" in refused(
        "amazon_reviews.py", *arguments, "no.png"
    )
    draw_picture(1).save(tmp_path / "query.png")
    assert "hf download BAAI/bge-visualized" in refused("amazon_reviews.py", *arguments, "query.png")


PHOTOGRAPH_EXAMPLES = (
    "async_queries.py",
    "index_folder.py",
    "metadata_filters.py",
    "multi_modal_index.py",
    "vector_store_index.py",
)


@pytest.mark.parametrize("name", PHOTOGRAPH_EXAMPLES)
def test_photographs_are_not_shown_to_a_model_of_drawings(name: str, refused: Refused) -> None:
    assert "knows drawings only, and these are photographs" in refused(name, "--model", "demo")


def test_photographs_without_a_model_end_with_a_clear_error(refused: Refused) -> None:
    said = refused("vector_store_index.py")
    assert "hf download BAAI/bge-visualized" in said
    assert "examples/quickstart.py, with tiny models that know drawings" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "index_folder.py",
            [
                "first run: 15 embedded",
                "15 rows\nnothing changed: 0 embedded [], 15 rows",
                "one changed: 1 embedded ['coffee.png'], 15 rows",
                "one removed: 0 embedded [], 14 rows",
            ],
        ),
        ("vector_store_index.py", ["picture alone\n  1. 1.000  coffee.png"]),
        ("multi_modal_index.py", ["picture alone\n  1. 1.000  rocket.jpg"]),
        ("metadata_filters.py", ["'space'\n  1. ", "at least 600 pixels wide\n  1. "]),
        ("async_queries.py", ["more like moon.png\n  1. ", "more like grass.png\n  1. "]),
    ],
)
def test_example(name: str, expected: list[str], tmp_path: Path, tiny_checkpoint: Path) -> None:
    output = run(name, tmp_path, "--model", str(tiny_checkpoint))
    for part in expected:
        assert part in output
    if name == "metadata_filters.py":
        space, large = output.split("at least 600")
        assert {found for _, _, found in HIT.findall(space)} <= {
            "astronaut.png",
            "hubble_deep_field.jpg",
            "moon.png",
            "rocket.jpg",
        }
        assert {found for _, _, found in HIT.findall(large)} <= {
            "hubble_deep_field.jpg",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "retina.jpg",
            "rocket.jpg",
        }


def test_adaptive_rerank(tmp_path: Path) -> None:
    sizes = ["--products", "60", "--rounds", "0", "--other-rounds", "1", "--questions", "12"]
    output = run("adaptive_rerank.py", tmp_path, *sizes, "--json", "figures.json")
    rows = re.findall(r"^ +(none|\d\.\d{4}) +(\d+\.\d)% +(\d\.\d{4})", output, re.MULTILINE)
    assert rows[0][:2] == ("none", "100.0")
    assert rows[-1][1] == "0.0"
    shares = [float(row[1]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert output.count("<- chosen on the other half") == 1

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["chosen on"]["queries"] == figures["measured on"]["queries"] == 6
    # AdaptiveRerank does on these queries what was computed of them.
    reranked, skipped, quality = re.search(
        r"(\d+) reranked, (\d+) not, nDCG@9 (\d\.\d{4})$", output, re.MULTILINE
    ).groups()  # type: ignore[union-attr]
    assert int(reranked) + int(skipped) == 6
    assert float(quality) == pytest.approx(figures["measured on"]["quality"], abs=1e-4)


def test_evaluate_says_how_long_it_takes_and_prints_what_it_has(tmp_path: Path) -> None:
    sizes = ["--products", "60", "--rounds", "2", "--other-rounds", "0", "--strategies", "first_token"]
    with subprocess.Popen(
        [*run_script(), str(EXAMPLES / "evaluate.py"), *sizes, "--json", "figures.json"],
        preexec_fn=signals.hear,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if "queries took" in line:
                assert re.search(r"5 of \d+ queries took [\d.]+ seconds; all will take about \d+ ", line)
                process.send_signal(signal.SIGINT)
                break
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    asked, all_questions = re.search(
        r"Interrupted: these are the figures of (\d+) of (\d+) questions", output
    ).groups()  # type: ignore[union-attr]
    assert 5 <= int(asked) < int(all_questions)
    assert "Means, with 95 % intervals" in output
    assert json.loads((tmp_path / "figures.json").read_text())["protocol"]["queries"] == int(asked)
