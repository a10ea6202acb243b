r"""Index a catalogue of pictures, ask with a picture and words, and get the right pictures back.

python examples/quickstart.py
        draws a catalogue of 900 products, asks three things and has the answers reranked, with the tiny
        models of this package: no download, less than a minute
python examples/quickstart.py --images photos/ --query-image leopard.jpg \
        --query-text "a phone case with this" --model BAAI/bge-visualized \
        --reranker microsoft/Phi-3-vision-128k-instruct
        asks it of your pictures, with the real models (9 GB from the hub, once)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from _common import (
    OUTPUT,
    QueryResult,
    demo_catalogue,
    demo_queries,
    draw_asked,
    embedding_of,
    print_asked,
)
from _report import write_report
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    Phi3VisionRerank,
    load_image_nodes,
    milvus_store,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--model",
    default="demo",
    help="Visualized BGE: hub name, file or folder; MagicLens: magiclens-base, or a path like it",
)
parser.add_argument("--reranker", default="demo", help="Phi-3 Vision: hub name or folder; '' for none")
parser.add_argument("--strategy", choices=["listwise", "first_token"], default="listwise")
parser.add_argument("--images", type=Path, help="folder of pictures (default: a catalogue that is drawn)")
parser.add_argument("--query-image", type=Path, help="picture of the query")
parser.add_argument("--query-text", default="", help="words of the query")
parser.add_argument("--uri", default=str(OUTPUT / "catalogue.db"), help="Milvus Lite file or server address")
parser.add_argument("--token", default="", help="for Milvus servers and Zilliz Cloud")
parser.add_argument("--top-k", type=int, default=9, help="pictures to retrieve and rerank")
parser.add_argument("--save-sheets", type=Path, help="folder for the sheets that the reranker is shown")
parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the picture and the report")
options = parser.parse_args()
if options.images and not (options.query_image or options.query_text):
    parser.error("--images needs --query-image, --query-text or both")
started = time.monotonic()

Settings.llm = None  # we want ranked pictures, not an essay; without this LlamaIndex asks for OpenAI

images, described = (options.images, {}) if options.images else demo_catalogue()
if options.query_image or options.query_text:
    queries = [ImageTextQuery(options.query_text, image_path=options.query_image)]
else:
    queries = demo_queries()

embed_model = embedding_of(options.model)
store = milvus_store(
    options.uri, embed_model, token=options.token, collection_name="quickstart", overwrite=True
)
nodes = load_image_nodes(images, on_error="skip")
IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
unread = [file for file in nodes.skipped if not file.reason.startswith("not a picture")]  # such as a manifest
print(f"Indexed {len(nodes)} pictures, skipped {len(unread)}.")

index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
retriever = index.as_retriever(similarity_top_k=options.top_k)
# In a query engine: index.as_query_engine(similarity_top_k=9, node_postprocessors=[reranker], ...)
reranker = options.reranker and Phi3VisionRerank(
    model=options.reranker,
    strategy=options.strategy,
    top_n=options.top_k,
    save_sheets=options.save_sheets,
)

asked = []
for query in queries:
    before = retriever.retrieve(query)
    after = reranker.postprocess_nodes(before, query_bundle=query) if reranker else None
    asked.append(QueryResult(query, before, after))
    print_asked(asked[-1], described)

picture = draw_asked(options.output / "results.png", asked, described)
report = write_report(options.output / "report.html", asked, described)
print(f"\nPicture: {picture}\nReport:  {report}\nTook {time.monotonic() - started:.0f} s.")
if "demo" in (options.model, options.reranker):
    print(
        "\nModels called 'demo' are tiny, and were trained on drawings like these to show how it works.\n"
        "For photographs pass --model BAAI/bge-visualized --reranker microsoft/Phi-3-vision-128k-instruct."
    )
