"""docs/evaluation.md: its table says what the readers do. Its programs: tests/test_pages.py."""

from __future__ import annotations

import re
from pathlib import Path

from support.benchmark_files import write_circo, write_cirr, write_fashion_iq

from llama_index_multimodal_rerank.evaluation import load_circo, load_cirr, load_fashion_iq

DOCUMENT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_table_of_the_benchmarks(tmp_path: Path) -> None:
    rows = dict(re.findall(r"^\| (metrics|reference) \| (.*) \|$", DOCUMENT, re.MULTILINE))
    benchmarks = (
        load_cirr(write_cirr(tmp_path / "a")),
        load_fashion_iq(write_fashion_iq(tmp_path / "b", "dress"), "dress"),
        load_circo(write_circo(tmp_path / "c")),
    )
    assert rows["reference"].split(" | ") == [each.reference for each in benchmarks]
    for cell, benchmark in zip(rows["metrics"].split(" | "), benchmarks, strict=True):
        for metric in benchmark.metrics:
            assert metric.name.partition("@")[0] in cell
