"""docs/evaluation.md: its programs run, and its table says what the readers do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.benchmark_files import draw, write_circo, write_cirr, write_fashion_iq

import llama_index_multimodal_rerank as package
from llama_index_multimodal_rerank import Phi3VisionRerank, VisualizedBGEEmbedding
from llama_index_multimodal_rerank.evaluation import load_circo, load_cirr, load_fashion_iq

DOCUMENT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_the_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the demo's models in place of the released ones."""
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "queries.jsonl").write_text(lines)
    draw(tmp_path / "query-pictures" / "leopard.jpg", 30)
    for number, name in enumerate(("0017", "0412", "0101")):
        draw(tmp_path / "photos" / f"{name}.jpg", number)
    write_cirr(tmp_path / "cirr")
    demo = {
        VisualizedBGEEmbedding: lambda: VisualizedBGEEmbedding(model_name="demo", device="cpu"),
        Phi3VisionRerank: lambda **options: Phi3VisionRerank(model="demo", explain=False, **options),
    }
    for kind, make in demo.items():
        monkeypatch.setattr(package, kind.__name__, make)
    programs = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(programs) == 2
    names: dict[str, object] = {}
    for program in programs:
        exec(compile(program, "evaluation.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "| composed | reranked | 1 |" in printed
    assert "| text only | retrieved | 1 |" in printed
    assert "| benchmark | CIRR |" in printed


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
