"""The page about agents, and its example, say what happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from support.machine import run_script

from llama_index_multimodal_rerank import VisualizedBGEEmbedding, image_node
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import Look

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")


async def test_the_blocks_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("mug", "shoe", "umbrella")
    shown = {kind: draw_query_picture(Look(kind, "leopard", "red"), seed=1) for kind in kinds}
    nodes = [
        image_node(picture, id_=kind, metadata={"title": f"A {kind}", "kind": kind, "price": 12})
        for kind, picture in shown.items()
    ]
    draw_query_picture("leopard", seed=0).save(tmp_path / "leopard.png")
    embed_model = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")
    names: dict[str, Any] = {"index": VectorStoreIndex(nodes, embed_model=embed_model)}
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    for written, here in {
        "Phi3VisionRerank(top_n=20)": "Phi3VisionRerank(model='demo', top_n=20)",
        '"photos/"': repr(str(tmp_path)),
    }.items():
        assert written in code
        code = code.replace(written, here)
    exec(code, names)
    output = capsys.readouterr().out
    found = json.loads(output.splitlines()[0])
    assert [each["rank"] for each in found["results"]] == [1, 2]
    assert found["reranking"] == "clean"
    assert re.search(r"^1\. A \w+ \(0\.\d{3}\)$", output, re.MULTILINE)
    answer = json.loads(await names["SearchImages"]().run(text="a shoe with this", image_path="leopard.png"))
    assert {each["id"] for each in answer["results"]} == set(kinds)


def test_the_example(tmp_path: Path) -> None:
    done = subprocess.run(
        [*run_script(), str(EXAMPLES / "agent.py")],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    output = done.stdout
    assert output.count("The agent searched:") == 2
    assert output.splitlines()[-1] == "It is leopard_shoe.png."
