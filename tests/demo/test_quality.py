"""The demo finds products that it was not trained on, and reranking helps it.

A part of the evaluation in ``examples/evaluate.py``, run as users run it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.machine import run_script

EVALUATE = Path(__file__).parents[2] / "examples" / "evaluate.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    shutil.copytree(catalogue, folder / "example-output" / "catalogue-900-0")
    done = subprocess.run(
        [*run_script(), str(EVALUATE), "--json", "figures.json"],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Means, with 95 % intervals" in done.stdout
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


def test_all_questions_were_asked(figures: dict[str, Any]) -> None:
    assert figures["queries"] == {
        "composed": 360,
        **dict.fromkeys(["pattern", "kind edit", "colour edit", "surface edit"], 90),
        **dict.fromkeys(["text", "image"], 60),
    }


def test_the_right_product_is_among_the_first_nine(figures: dict[str, Any]) -> None:
    for group in ("composed", "text", "image"):
        assert figures["means"][group]["retrieved"]["Recall@9"]["mean"] >= 0.95
    assert figures["means"]["composed"]["retrieved"]["Recall@1"]["mean"] >= 0.5


STRATEGIES = ("first_token", "listwise")


@pytest.mark.parametrize("metric", ["Recall@1", "nDCG@9"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reranking_helps(figures: dict[str, Any], strategy: str, metric: str) -> None:
    """More than chance would have it: the 95 % interval of the paired difference lies above 0."""
    assert figures["changes"]["composed"][strategy][metric]["low"] > 0


@pytest.mark.parametrize("group", ["text", "image"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reranking_harms_no_other_queries(figures: dict[str, Any], strategy: str, group: str) -> None:
    for metric in ("Recall@1", "nDCG@9"):
        assert figures["changes"][group][strategy][metric]["mean"] >= 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reranking_looks_at_pictures_and_not_at_places(figures: dict[str, Any], strategy: str) -> None:
    means = figures["means"]["composed"]
    shuffled = means[f"{strategy}, shuffled"]["nDCG@9"]["mean"]
    assert abs(shuffled - means[strategy]["nDCG@9"]["mean"]) < 0.03
