"""Search a folder of pictures with a picture and words, rerank, and look at before and after.

    python examples/rerank.py photos/ leopard.jpg "a phone case with this"

writes ``before_after.png``: what the vectors found on the left, what Phi-3 Vision made of it on the right.
The first run fetches the models (0.7 GB and 8.3 GB); Phi-3 Vision wants a GPU with 12 GB or more, or patience.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore
from PIL import Image

from llama_index_multimodal_rerank import (
    Cell,
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    build_sheet,
    load_image,
    load_image_nodes,
    milvus_store,
)


def draw(hits: Sequence[NodeWithScore], query: Image.Image) -> Image.Image:
    """Show hits in their order on a sheet, as the model is shown them."""
    return build_sheet([Cell(load_image(hit.node.image_path)) for hit in hits], query).image


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures to search")
    parser.add_argument("image", type=Path, help="query picture")
    parser.add_argument("text", help="what to look for, in words about the query picture")
    parser.add_argument("--top-k", type=int, default=9, help="candidates to rerank")
    parser.add_argument("--embed-model", default="BAAI/bge-visualized")
    parser.add_argument("--rerank-model", default="microsoft/Phi-3-vision-128k-instruct")
    parser.add_argument("--output", type=Path, default=Path("before_after.png"))
    options = parser.parse_args(arguments)

    Settings.llm = None  # we want ranked nodes, not an essay
    embed_model = VisualizedBGEEmbedding(model_name=options.embed_model)
    store = milvus_store(Path(tempfile.mkdtemp()) / "pictures.db", embed_model)
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(
        nodes=load_image_nodes(options.folder), show_progress=True
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
    query = ImageTextQuery(options.text, image_path=str(options.image))

    before = index.as_retriever(similarity_top_k=options.top_k).retrieve(query)
    reranker = Phi3VisionRerank(model=options.rerank_model, top_n=options.top_k)
    after = reranker.postprocess_nodes(before, query)

    for hit in after:
        metadata = hit.node.metadata
        print(f"{metadata['rerank_rank']:2}  {hit.score:.3f}  (was {metadata['retrieval_score']:.3f})", end="  ")
        print(hit.node.image_path)
    print("The model saw:", after[0].node.metadata.get("rerank_query_caption"))
    print("Why the first:", after[0].node.metadata.get("rerank_reason"))

    picture = load_image(options.image)
    left, right = draw(before, picture), draw(after, picture)
    both = Image.new("RGB", (left.width + right.width + 40, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 40, 0))
    both.save(options.output)
    print("Wrote", options.output)


if __name__ == "__main__":
    main()
