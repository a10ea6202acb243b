r"""A folder of pictures goes in; a query of picture + text comes back with the right ones.

python examples/quickstart.py
python examples/quickstart.py --images photos/ --query-image leopard.jpg \
        --query-text "a phone case with this"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import OUTPUT, draw_hits, example_embedding, photographs, print_hits
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline

from llama_index_multimodal_rerank import ImageTextQuery, load_image_nodes, milvus_store

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="hub name, checkpoint file or folder (default: BAAI/bge-visualized)")
parser.add_argument("--images", type=Path, help="folder of pictures (default: scikit-image's photographs)")
parser.add_argument("--query-image", help="picture of the query (default: one of the photographs)")
parser.add_argument("--query-text", default="the same, but seen from the other side")
parser.add_argument("--uri", default=str(OUTPUT / "catalog.db"), help="Milvus Lite file or server address")
parser.add_argument("--token", default="", help="for Milvus servers and Zilliz Cloud")
parser.add_argument("--top-k", type=int, default=5)
parser.add_argument("--output", type=Path, default=OUTPUT / "results.png")
options = parser.parse_args()

Settings.llm = None  # we want ranked pictures, not an essay; without this LlamaIndex asks for OpenAI

images = options.images or photographs()
query_image = options.query_image or (str(images / "motorcycle_left.png") if options.images is None else None)
query = ImageTextQuery(options.query_text, image_path=query_image)

embed_model = example_embedding(options.model)
embed_model.show_progress_bar = True
store = milvus_store(
    options.uri, embed_model, token=options.token, collection_name="quickstart", overwrite=True
)

nodes = load_image_nodes(images, on_error="skip", show_progress=True)
IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
print(f"Indexed {len(nodes)} pictures, skipped {len(nodes.skipped)}.")

index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
engine = index.as_query_engine(similarity_top_k=options.top_k, response_mode="no_text")
hits = engine.query(query).source_nodes

print_hits(f"{query.query_str!r} + {query.image_path}", hits)
draw_hits(options.output, query.image_path, query.query_str, hits)
