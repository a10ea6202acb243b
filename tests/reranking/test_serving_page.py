"""The code of docs/serving.md runs, against a server of vLLM's protocol."""

from __future__ import annotations

import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore
from PIL import Image
from support.vllm_server import VLLMClient, VLLMServer

from llama_index_multimodal_rerank import ImageTextQuery, image_node

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


class OpenAILike(VLLMClient):
    """Stands for llama-index-llms-openai-like, which the tests do not need."""

    def __init__(self, **settings: Any) -> None:
        assert settings["is_chat_model"]
        super().__init__(api_base=settings["api_base"])


def test_the_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("llama_index.llms.openai_like")
    module.OpenAILike = OpenAILike  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_index.llms", ModuleType("llama_index.llms"))
    monkeypatch.setitem(sys.modules, "llama_index.llms.openai_like", module)
    reds = (20, 240, 130)
    nodes = [
        NodeWithScore(
            node=image_node(Image.new("RGB", (40, 40), (red, 90, 250 - red)), id_=str(red)), score=0.5
        )
        for red in reds
    ]
    query = ImageTextQuery("redder", image=Image.new("RGB", (40, 40), (0, 90, 90)))
    names: dict[str, Any] = {"nodes": nodes, "query": query, "queries": [(nodes, query)] * 3}
    with VLLMServer() as server:
        for block in BLOCKS:
            exec(block.replace("http://localhost:8000/v1", server.url), names)

    assert len(BLOCKS) == 3
    assert [hit.node.node_id for hit in names["hits"]] == ["240", "130", "20"]
    assert [[hit.node.node_id for hit in each] for each in names["results"]] == [["240", "130", "20"]] * 3
    assert "'source': 'first_token'" in capsys.readouterr().out
    assert {"structured_outputs", "logprobs"} <= set(server.requests[0])


def test_the_command_line_can_be_read() -> None:
    (command,) = re.findall(r"^```bash\n(vllm serve .*?)^```", PAGE, re.M | re.S)
    words = shlex.split(command.replace("\\\n", " "))
    options = dict(pairwise(words))
    assert json.loads(options["--limit-mm-per-prompt"]) == {"image": 1}
    assert json.loads(options["--mm-processor-kwargs"]) == {"num_crops": 16}
    assert int(options["--max-model-len"]) == 4096
