"""Programs of the pages, run as they are written: in a folder with the files that they name, offline.

Nothing in them is replaced. The names of released models lead to the demo's, in a folder laid out as the
hub's cache; a served model is a server of the tests; pictures that a page names are drawn.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.schema import NodeWithScore
from safetensors.torch import load_file

from llama_index_multimodal_rerank import (
    ImageTextNode,
    ImageTextQuery,
    VisualizedBGEEmbedding,
    image_node,
    milvus_store,
)
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.checkpoints import checkpoint_folder
from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, Look
from llama_index_multimodal_rerank.models.hub import TOKENIZER_FILES
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGEConfig, files
from llama_index_multimodal_rerank.vlm import phi3_vision

from . import benchmark_files, magiclens_golden
from .markdown_blocks import REPOSITORY, Block, read_blocks
from .vllm_server import VLLMClient, VLLMServer

COMMIT = "0" * 40
_PICTURE = re.compile(r"""["']([\w./-]+\.(?:jpg|png))["']""")


def lay_out_hub(cache: Path) -> None:
    """Fill a folder as the hub's cache would be, with the demo's models under the released names."""
    embedder, reranker = checkpoint_folder("embedder"), checkpoint_folder("reranker")
    tokenizer = _repository(cache, "BAAI/bge-base-en-v1.5")
    for name in TOKENIZER_FILES:
        (tokenizer / name).symlink_to(embedder / name)
    weights = load_file(embedder / "model.safetensors")
    torch.save(weights, _repository(cache, files.WEIGHTS_REPO) / "Visualized_base_en_v1.5.pth")
    for repository in ("microsoft/Phi-3-vision-128k-instruct", "microsoft/Phi-3.5-vision-instruct"):
        folder = _repository(cache, repository)
        for file in reranker.iterdir():
            (folder / file.name).symlink_to(file)


def _repository(cache: Path, name: str) -> Path:
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


def use_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the released names lead to that folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    config = VisualizedBGEConfig.from_json_file(checkpoint_folder("embedder") / "config.json")
    release = files.Release(config, "Visualized_base_en_v1.5.pth", "BAAI/bge-base-en-v1.5")
    monkeypatch.setattr(files, "RELEASES", {**files.RELEASES, files.WEIGHTS_REPO: release})
    monkeypatch.setattr(phi3_vision, "DEFAULT_NUM_CROPS", phi3_vision.DEMO_NUM_CROPS)


def draw_pictures(folder: Path, blocks: Iterable[Block]) -> None:
    """Draw the pictures that programs and data name, and some in ``photos/``."""
    named = {name for block in blocks for name in _PICTURE.findall(block.code)}
    for number, name in enumerate(
        sorted({*named, *(f"photos/{kind.replace(' ', '_')}.png" for kind in KINDS[:6])})
    ):
        for path in (folder / name, *([folder / "photos" / name] if "/" not in name else [])):
            path.parent.mkdir(parents=True, exist_ok=True)
            colour = COLOURS[number % len(COLOURS)]
            draw_query_picture(Look(KINDS[number % len(KINDS)], "leopard", colour), seed=number).save(path)


# -- what pages say is there --------------------------------------------------------------------------


def _shop(folder: Path) -> list[ImageTextNode]:
    """Two pictures each of ten products."""
    return [
        image_node(
            draw_query_picture(Look(kind, "leopard", colour), seed=number),
            id_=f"B{number:04}:{colour}",
            metadata={
                "parent_asin": f"B{number:04}",
                "title": f"A {kind}",
                "kind": kind,
                "price": 12.0,
            },
        )
        for number, kind in enumerate(KINDS)
        for colour in ("red", "green")
    ]


def _index(folder: Path) -> dict[str, Any]:
    return {"index": VectorStoreIndex(_shop(folder), embed_model=VisualizedBGEEmbedding())}


def _store(folder: Path) -> dict[str, Any]:
    embed_model = VisualizedBGEEmbedding()
    store = milvus_store("shop.db", embed_model)
    nodes = _shop(folder)
    store.add(list(embed_model(nodes)))
    query = ImageTextQuery("the same in blue", image_path="own.jpg")
    return {"store": store, "embed_model": embed_model, "nodes": nodes, "query": query}


def _hits(folder: Path) -> dict[str, Any]:
    nodes = [NodeWithScore(node=node, score=0.5) for node in _shop(folder)[:3]]
    query = ImageTextQuery("the same in blue", image=draw_query_picture("leopard", seed=0))
    return {"nodes": nodes, "query": query, "queries": [(nodes, query)] * 2}


def _reranking(folder: Path) -> dict[str, Any]:
    judged = [([0.9 - number / 1000, 0.5], 0.5, 0.5) for number in range(400)]
    return {**_index(folder), "judged": judged}


def _phi3(folder: Path) -> dict[str, Any]:
    ask = "<|user|>\n{}What is shown?<|end|>\n<|assistant|>\n"
    one, two = ask.format("<|image_1|>\n"), ask.format("<|image_1|>\n<|image_2|>\n")
    return {
        "first": draw_query_picture("leopard", seed=0),
        "second": draw_query_picture("brick", seed=1),
        "prompt_a": one,
        "prompt_b": two,
        "prompt_c": ask.format(""),
        "caption_prompt": one,
        "ranking_prompt": one,
    }


def _evaluation(folder: Path) -> dict[str, Any]:
    blocks = read_blocks(REPOSITORY / "docs" / "evaluation.md")
    (lines,) = (block.code for block in blocks if block.language == "json")
    (folder / "queries.jsonl").write_text(lines)
    benchmark_files.write_cirr(folder / "cirr")
    for name in ("0017", "0412", "0101"):
        benchmark_files.draw(folder / "photos" / f"{name}.jpg", int(name))
    benchmark_files.draw(folder / "query-pictures" / "leopard.jpg", 30)
    return {}


def _magiclens(folder: Path) -> dict[str, Any]:
    model = magiclens_golden.models(full_size=False)[0]
    magiclens_golden.write_folder(folder, model, name="magic_lens_clip_base.pkl")
    return {}


GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "docs/agents.md": _index,
    "docs/catalogues.md": _store,
    "docs/evaluation.md": _evaluation,
    "docs/magiclens.md": _magiclens,
    "docs/phi3_vision.md": _phi3,
    "docs/reranking.md": _reranking,
    "docs/serving.md": _hits,
}
"""Pages whose programs begin with something that the page says is there, with what makes it."""


def run_programs(
    page: str, blocks: list[Block], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Run the Python blocks of a page one after the other, with the same names; return these.

    Args:
        page: its path in the repository.
        blocks: those that are executed.
        folder: an empty folder; the programs run in it.
        monkeypatch: sets the stage.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Settings, "_llm", None)
    draw_pictures(folder, blocks)
    names = {"__name__": "__main__", **GIVEN.get(page, lambda _folder: {})(folder)}
    with VLLMServer() as server:
        stand_for_openai_like(server.url, monkeypatch)
        for block in blocks:
            code = "\n" * (block.line - 1) + block.code  # so that a traceback names the line of the page
            exec(compile(code, str(block.page), "exec"), names)
    return names


def stand_for_openai_like(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for llama-index-llms-openai-like, which the tests do not need; whatever is asked goes to url."""

    class OpenAILike(VLLMClient):
        def __init__(self, *, api_base: str, is_chat_model: bool, **settings: Any) -> None:
            assert api_base.startswith("http://")
            assert is_chat_model  # else LlamaIndex drops the pictures
            super().__init__(api_base=url)

    module = ModuleType("llama_index.llms.openai_like")
    module.OpenAILike = OpenAILike  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_index.llms", ModuleType("llama_index.llms"))
    monkeypatch.setitem(sys.modules, "llama_index.llms.openai_like", module)
