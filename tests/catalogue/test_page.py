"""docs/catalogues.md: its programs run, one after the other, and do what the text says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.storage.kvstore import SimpleKVStore
from support.catalogue_behaviour import PAGE
from support.drawing import draw_picture
from support.vlm_doubles import Scripted

from llama_index_multimodal_rerank import (
    GroupByProduct,
    ImageTextNode,
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    image_node,
    milvus_store,
)

PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def model(tiny_checkpoint: Path) -> VisualizedBGEEmbedding:
    return VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", dtype="float32")


def shop(folder: Path, price: float = 9.5, count: int = 20) -> list[ImageTextNode]:
    nodes = []
    for product in range(count):
        for variant in range(3):
            path = folder / f"{product}-{variant}.png"
            if not path.exists():
                draw_picture(3 * product + variant).save(path)
            asin = f"B{product:04}"
            metadata = {"parent_asin": asin, "price": price}
            nodes.append(image_node(path, metadata=metadata, id_=f"{asin}:{variant}"))
    return nodes


@pytest.fixture(autouse=True)
def no_llm() -> Iterator[None]:
    Settings.llm = None
    yield
    Settings.llm = None


def test_the_programs(tmp_path: Path, model: VisualizedBGEEmbedding) -> None:
    amazon, engine, first, second, price, pipeline = PROGRAMS
    assert "read_amazon_items" in amazon  # examples/amazon_reviews.py is this program, and has its test
    store = milvus_store(tmp_path / "m.db", model)
    store.add(list(model(shop(tmp_path))))
    own = tmp_path / "4-1.png"
    names: dict[str, Any] = {
        "store": store,
        "embed_model": model,
        "query": ImageTextQuery("the same in blue", image_path=own),
    }
    for written, here in {
        '"own.jpg"': repr(str(own)),
        "Phi3VisionRerank(top_n=3)": "reranker",
    }.items():
        assert written in engine
        engine = engine.replace(written, here)
    names["reranker"] = Phi3VisionRerank(model=Scripted("[3] > [2] > [1]"), top_n=9)
    exec(engine, names)
    hits = names["response"].source_nodes
    assert len(hits) == 9
    assert len({hit.node.metadata["parent_asin"] for hit in hits}) == 9
    assert all(hit.node.node_id != "B0004:1" for hit in hits)
    assert ["B0004:1"] in [hit.node.metadata.get("query_image_left_out") for hit in hits]

    exec(first, names)
    one, two = (
        [hit.node.metadata["parent_asin"] for hit in names[page]] for page in ("first_page", "second_page")
    )
    assert len({*one, *two}) == 18
    exec(second, names)
    assert [hit.node.metadata["parent_asin"] for hit in names["second_page"]] == two

    exec(price, names)
    changed = {
        node.node_id: node.metadata["price"] for node in store.get_nodes([f"B{n:04}:0" for n in range(3)])
    }
    assert changed == {"B0000:0": 9.5, "B0001:0": 4.5, "B0002:0": 9.5}

    names["nodes"] = shop(tmp_path, count=2)
    exec(pipeline, names)
    model.embeddings_cache = None


def test_a_changed_price_embeds_no_picture(
    tmp_path: Path, model: VisualizedBGEEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = PROGRAMS[-1].replace("pipeline.run(documents=nodes)", "")
    names: dict[str, Any] = {"store": milvus_store(tmp_path / "m.db", model), "embed_model": model}
    exec(program, names)
    assert isinstance(model.embeddings_cache, SimpleKVStore)
    embedded: list[int] = []
    encode = type(model)._get_text_embeddings

    def counting(self: Any, texts: list[str]) -> Any:
        embedded.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(type(model), "_get_text_embeddings", counting)
    names["pipeline"].run(documents=shop(tmp_path, count=4))
    assert sum(embedded) == 12
    embedded.clear()
    nodes = shop(tmp_path, price=4.5, count=3)  # the fourth product is gone
    assert len(names["pipeline"].run(documents=nodes)) == 9
    assert sum(embedded) == 0
    rows = names["store"].client.query("images", filter='id != ""', output_fields=["price"], limit=99)
    assert sorted((row["id"], row["price"]) for row in rows) == sorted((node.node_id, 4.5) for node in nodes)


def test_rows_of_the_page_are_what_is_counted() -> None:
    assert GroupByProduct.rows_needed(9, 3) == 25
