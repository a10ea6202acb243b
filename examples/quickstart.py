r"""Index a catalogue of pictures, ask with a picture and words, and get the right pictures back.

python examples/quickstart.py
        draws a catalogue of 900 products, asks three things and has the answers reranked, with the tiny
        models of this package: no download, less than a minute
python examples/quickstart.py --images photos/ --query-image leopard.jpg \
        --query-text "a phone case with this" --model BAAI/bge-visualized \
        --reranker microsoft/Phi-3-vision-128k-instruct
        asks it of your pictures, with the real models (9 GB from the hub, once); for the next question
        only pictures that are new or changed are embedded
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

from _common import MODEL_HELP, OUTPUT, check_picture, demo_catalogue, demo_queries, embedding_of, load
from _report import write_report
from _results import QueryResult, print_result
from _results_picture import draw_results
from llama_index.core import Settings, VectorStoreIndex

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    Phi3VisionRerank,
    milvus_store,
    sync_folder,
)

REAL_MODELS = "--model BAAI/bge-visualized --reranker microsoft/Phi-3-vision-128k-instruct"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help=f"{MODEL_HELP}. Default, for the drawn catalogue: demo")
parser.add_argument(
    "--reranker",
    help="Phi-3 Vision: hub name or folder; '' for none. Default: demo for the drawn catalogue, else none",
)
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

# What is wrong with the question is said now, and not after the pictures were embedded.
if options.images and not (options.query_image or options.query_text):
    parser.error("--images needs --query-image, --query-text or both")
if options.images and not options.images.is_dir():
    parser.error(f"--images {options.images}: there is no such folder")
if options.images and options.model is None:
    parser.error(
        f"--images needs --model: {REAL_MODELS} for photographs; 'demo' knows drawings like those of the "
        "catalogue only, and is of no use for photographs"
    )
if options.query_image:
    check_picture(parser, "--query-image", options.query_image)
if options.top_k < 1:
    parser.error(f"--top-k must be at least 1, got {options.top_k}")
model_name = options.model or "demo"
reranker_name = ("" if options.images else "demo") if options.reranker is None else options.reranker
if options.images and "demo" in (model_name, reranker_name):
    print("The models called 'demo' know drawings only: if these are photographs, the results mean nothing.")
started = time.monotonic()

Settings.llm = None  # we want ranked pictures, not an essay; without this LlamaIndex asks for OpenAI

embed_model = embedding_of(model_name)
reranker = (
    Phi3VisionRerank(
        model=reranker_name,
        strategy=options.strategy,
        top_n=options.top_k,
        save_sheets=options.save_sheets,
    )
    if reranker_name
    else None
)
load(embed_model, reranker)
images, described = (options.images, {}) if options.images else demo_catalogue()
if options.query_image or options.query_text:
    queries = [ImageTextQuery(options.query_text, image_path=options.query_image)]
else:
    queries = demo_queries()

# One collection for each folder and model, in step with the folder: what is there is not embedded again.
made_of = json.dumps([str(images.resolve()), embed_model.fingerprint], sort_keys=True)
name = f"quickstart_{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
store = milvus_store(options.uri, embed_model, token=options.token, collection_name=name)
done = sync_folder(images, store, embed_model, show_progress=True)
print(f"Indexed {done.pictures} pictures, skipped {len(done.unreadable)}. Embedded now: {done.embedded}.")
for file in done.unreadable[:9]:
    print(f"  skipped {file.path!r}: {file.reason}")

index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
retriever = index.as_retriever(similarity_top_k=options.top_k)
# In a query engine: index.as_query_engine(similarity_top_k=9, node_postprocessors=[reranker], ...)
results = []
for query in queries:
    retrieved = retriever.retrieve(query)
    reranked = reranker.postprocess_nodes(retrieved, query_bundle=query) if reranker else None
    results.append(QueryResult(query, retrieved, reranked))
    print_result(results[-1], described)

models = {"Retrieved by": f"{type(embed_model).__name__}, model {model_name}"}
if reranker:
    models["Reranked by"] = f"{type(reranker).__name__}, model {reranker_name}, strategy {options.strategy}"
drawn = draw_results(options.output / "results.png", results, described, models)
report = write_report(options.output / "report.html", results, described, models)
print(f"\nPicture: {drawn}\nReport:  {report}\nTook {time.monotonic() - started:.0f} s.")
if not options.images and "demo" in (model_name, reranker_name):
    print(
        "\nModels called 'demo' are tiny, and were trained on drawings like these to show how it works.\n"
        f"For photographs pass {REAL_MODELS}."
    )
