r"""Search products of Amazon Reviews 2023 with a picture and words, and rerank what is found.

python examples/amazon_reviews.py meta_Cell_Phones_and_Accessories.jsonl.gz --hosts m.media-amazon.com \
        --query-image leopard.jpg
        takes the first 900 products of the published file, fetches their main pictures, indexes them, and
        asks for "a phone case with this", with the released models (9 GB from the hub, once)
python examples/amazon_reviews.py … --demo
        the same with the tiny models of this package, which know drawings only: it shows that everything runs

A run that was stopped goes on where it was: pictures that are there are not fetched again.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from _common import MODEL_HELP, OUTPUT, check_picture, embedding_of, load
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore

from llama_index_multimodal_rerank import (
    ImageTextQuery,
    Phi3VisionRerank,
    milvus_store,
)
from llama_index_multimodal_rerank.data.amazon_reviews import amazon_nodes, read_amazon_items
from llama_index_multimodal_rerank.data.downloads import download_images

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("items", type=Path, help="item metadata: meta_<category>.jsonl or .jsonl.gz")
parser.add_argument("--hosts", nargs="+", required=True, help="the only hosts that pictures are fetched from")
parser.add_argument("--query-image", type=Path, required=True, help="picture of the query")
parser.add_argument("--query-text", default="a phone case with this", help="words of the query")
parser.add_argument("--sample", type=int, default=900, help="products to take from the file")
parser.add_argument("--connections", type=int, default=8, help="downloads at a time")
parser.add_argument("--images", type=Path, default=OUTPUT / "amazon-images", help="folder for the pictures")
parser.add_argument("--uri", default=str(OUTPUT / "amazon.db"), help="Milvus Lite file or server address")
parser.add_argument("--model", default="BAAI/bge-visualized", help=MODEL_HELP)
parser.add_argument(
    "--reranker", default="microsoft/Phi-3-vision-128k-instruct", help="Phi-3 Vision: hub name or folder"
)
parser.add_argument("--demo", action="store_true", help="use the tiny models of this package")
options = parser.parse_args()
check_picture(parser, "--query-image", options.query_image)
Settings.llm = None  # we want ranked pictures, not an essay; without this LlamaIndex asks for OpenAI

embed_model = embedding_of("demo" if options.demo else options.model)
reranker = Phi3VisionRerank(model="demo" if options.demo else options.reranker, top_n=9)
load(embed_model, reranker)  # before anything is downloaded
if options.demo:
    print("The tiny models know drawings only: that they run is shown, and not what they find.")

records = read_amazon_items(options.items)
sample = list(islice(records, options.sample))
print(f"Read {len(sample)} products, skipped {len(records.skipped)} lines.")
for line, reason in records.skipped[:9]:
    print(f"  line {line}: {reason}")

urls = [record.images[0].url for record in sample]
files = download_images(
    urls, options.images, allow_urls=options.hosts, connections=options.connections, show_progress=True
)
print(f"Have {len(files)} pictures, {files.fetched} of them fetched now, skipped {len(files.skipped)}.")
for url, reason in files.skipped[:9]:
    print(f"  {url}: {reason}")

Path(OUTPUT).mkdir(exist_ok=True)
store = milvus_store(options.uri, embed_model, collection_name="amazon", overwrite=True)
nodes = amazon_nodes(sample, files=files)
IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=nodes)
print(f"Indexed {len(nodes)} products.")

index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
query = ImageTextQuery(options.query_text, image_path=options.query_image)
found = index.as_retriever(similarity_top_k=9).retrieve(query)
reranked = reranker.postprocess_nodes(found, query_bundle=query)


def show(heading: str, hits: list[NodeWithScore]) -> None:
    """Print a list of products."""
    print(f"\n{heading}")
    for rank, hit in enumerate(hits, start=1):
        product = hit.node.metadata
        price = f"{product['price']:.2f}" if "price" in product else product.get("price_text", "-")
        title = product.get("title", "")[:60]
        print(f"  {rank}. {hit.score:.3f}  {product['parent_asin']}  {price:>8}  {title}")


show(f"[{options.query_image}] + {options.query_text!r}, retrieved", found)
show("reranked", reranked)
print(f"\nIts reason: {reranked[0].node.metadata.get('rerank_reason')}")
