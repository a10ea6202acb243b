"""Many queries at once, asynchronously: index, retriever and query engine all have their a… methods."""

from __future__ import annotations

import asyncio

from _common import OUTPUT, photograph_model, photographs, print_hits
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline

from llama_index_multimodal_rerank import ImageTextQuery, load_image_nodes, milvus_store

Settings.llm = None
embed_model = photograph_model(__doc__)
folder = photographs()
store = milvus_store(OUTPUT / "async.db", embed_model, overwrite=True)


async def main() -> None:
    """Index the photographs, then ask five things at the same time."""
    await IngestionPipeline(transformations=[embed_model], vector_store=store).arun(
        nodes=load_image_nodes(folder)
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    engine = index.as_query_engine(similarity_top_k=3, response_mode="no_text")
    names = ["coffee.png", "moon.png", "chelsea.png", "brick.png", "grass.png"]
    queries = [ImageTextQuery("more like this", image_path=str(folder / name)) for name in names]
    answers = await asyncio.gather(*(engine.aquery(query) for query in queries))
    for name, answer in zip(names, answers, strict=True):
        print_hits(f"more like {name}", answer.source_nodes)


asyncio.run(main())
