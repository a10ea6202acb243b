"""The demo finds products that it was not trained on, and reranking makes that better.

A part of the evaluation in ``examples/evaluate.py``, run as users run it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVALUATE = Path(__file__).parents[2] / "examples" / "evaluate.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    shutil.copytree(catalogue, folder / "example-output" / "catalogue-900-0")
    done = subprocess.run(
        [sys.executable, EVALUATE, "--rounds", "1", "--other-rounds", "1", "--json", "figures.json"],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Change by reranking, with 95 % intervals" in done.stdout
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


def test_all_questions_were_asked(figures: dict[str, Any]) -> None:
    assert figures["queries"] == {
        "composed": 120,
        **dict.fromkeys(["pattern", "kind edit", "colour edit", "surface edit", "text", "image"], 30),
    }


def test_the_right_product_is_among_the_first_nine(figures: dict[str, Any]) -> None:
    assert figures["means"]["composed"]["retrieved"]["Recall@9"]["mean"] >= 0.95


@pytest.mark.parametrize("strategy", ["first_token", "listwise"])
def test_reranking_helps(figures: dict[str, Any], strategy: str) -> None:
    changes = figures["changes"]["composed"][strategy]
    assert changes["Recall@9"] == {"mean": 0.0, "low": 0.0, "high": 0.0}  # it loses nothing
    for metric in ("Recall@1", "nDCG@9"):
        assert changes[metric]["low"] > 0
    for family in ("text", "image"):
        assert figures["changes"][family][strategy]["nDCG@9"]["mean"] > -0.01


@pytest.mark.parametrize("strategy", ["first_token", "listwise"])
def test_it_looks_at_pictures_and_not_at_places(figures: dict[str, Any], strategy: str) -> None:
    means = figures["means"]["composed"]
    in_order, shuffled = (means[name]["nDCG@9"]["mean"] for name in (strategy, f"{strategy}, shuffled"))
    assert abs(in_order - shuffled) < 0.03
