r"""Search a folder with a picture and words, rerank, and look at before and after.

python examples/rerank.py --images photos/ --query-image leopard.jpg --query-text "a phone case with this"

The first run fetches the models. Phi-3 Vision has 8.3 GB and wants a GPU, or patience.
--save-sheets writes down what Phi-3 Vision was shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import OUTPUT, draw_hits, example_embedding, photographs, print_hits
from llama_index.core import Settings, VectorStoreIndex
from PIL import Image

from llama_index_multimodal_rerank import ImageTextQuery, Phi3VisionRerank, load_image_nodes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="embedding: hub name, file or folder (default: BAAI/bge-visualized)")
parser.add_argument("--rerank-model", default="microsoft/Phi-3-vision-128k-instruct")
parser.add_argument("--strategy", choices=["listwise", "first_token"], default="listwise")
parser.add_argument("--images", type=Path, help="folder of pictures (default: scikit-image's photographs)")
parser.add_argument("--query-image", help="picture of the query (default: one of the photographs)")
parser.add_argument("--query-text", default="the same, but seen from the other side")
parser.add_argument("--top-k", type=int, default=9, help="candidates to rerank")
parser.add_argument("--top-n", type=int, default=5, help="candidates to return")
parser.add_argument("--save-sheets", type=Path)
parser.add_argument("--output", type=Path, default=OUTPUT / "before_after.png")
options = parser.parse_args()

Settings.llm = None  # we want ranked pictures, not an essay; without this LlamaIndex asks for OpenAI

images = options.images or photographs()
query_image = options.query_image or (str(images / "motorcycle_left.png") if options.images is None else None)
query = ImageTextQuery(options.query_text, image_path=query_image)

index = VectorStoreIndex(load_image_nodes(images), embed_model=example_embedding(options.model))
rerank = Phi3VisionRerank(
    model=options.rerank_model,
    strategy=options.strategy,
    top_n=options.top_n,
    save_sheets=options.save_sheets,
)

before = index.as_retriever(similarity_top_k=options.top_k).retrieve(query)
# In a query engine: index.as_query_engine(similarity_top_k=9, node_postprocessors=[rerank], ...)
after = rerank.postprocess_nodes(before, query)

print_hits("Before, by vectors:", before[: options.top_n])
print_hits("After, by looking:", after)
best = after[0].node.metadata
print(f"\nThe model saw in the query: {best.get('rerank_query_caption')}")
print(f"Why the first is the first: {best.get('rerank_reason')}")

rows = []
for name, hits in (("before", before[: options.top_n]), ("after", after)):
    path = options.output.with_stem(f"{options.output.stem}_{name}")
    draw_hits(path, query.image_path, f"{query.query_str} ({name})", hits)
    rows.append(Image.open(path))
both = Image.new("RGB", (rows[0].width, rows[0].height + rows[1].height), "white")
for number, row in enumerate(rows):
    both.paste(row, (0, number * rows[0].height))
both.save(options.output)
print(f"Both in one picture: {options.output}")
