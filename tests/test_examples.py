"""Every example runs from nothing, offline, and prints what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
HIT = re.compile(r"^  (\d)\. (\d\.\d{3})  (\S+)$", re.MULTILINE)


def run(name: str, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "no-models")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart_says_that_it_has_no_model_and_draws_the_results(tmp_path: Path) -> None:
    output = run("quickstart.py", tmp_path)
    assert "TINY MODEL OF RANDOM WEIGHTS" in output
    assert "Indexed 15 pictures, skipped 0." in output
    hits = HIT.findall(output)
    assert [rank for rank, _, _ in hits] == list("12345")
    assert hits[0][2] == "motorcycle_left.png"
    scores = [float(score) for _, score, _ in hits]
    assert scores == sorted(scores, reverse=True)
    assert Image.open(tmp_path / "example-output" / "results.png").size == (1432, 304)


def test_quickstart_on_the_users_own_folder_and_model(
    tmp_path: Path, pictures: list[Path], tiny_checkpoint: Path
) -> None:
    (pictures[0].parent / "broken.png").write_bytes(b"no picture")
    output = run(
        "quickstart.py",
        tmp_path,
        *("--images", str(pictures[0].parent), "--model", str(tiny_checkpoint)),
        *("--query-image", str(pictures[3]), "--query-text", "", "--top-k", "2", "--uri", "mine.db"),
    )
    assert "RANDOM WEIGHTS" not in output
    assert "Indexed 6 pictures, skipped 1." in output
    assert [rank for rank, _, _ in HIT.findall(output)] == ["1", "2"]
    assert HIT.findall(output)[0][2] == "picture-3.png"
    assert (tmp_path / "mine.db").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("index_folder.py", ["first run:  15 pictures", "second run: 0 pictures", "embedded: coffee.png"]),
        ("vector_store_index.py", ["picture alone\n  1. 1.000  coffee.png"]),
        ("multi_modal_index.py", ["picture alone\n  1. 1.000  rocket.jpg"]),
        ("metadata_filters.py", ["'space'\n  1. ", "at least 600 pixels wide\n  1. "]),
        ("async_queries.py", ["more like moon.png\n  1. ", "more like grass.png\n  1. "]),
    ],
)
def test_example(name: str, expected: list[str], tmp_path: Path) -> None:
    output = run(name, tmp_path)
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
