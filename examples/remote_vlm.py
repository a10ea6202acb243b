r"""Rerank pictures with a model behind an OpenAI-compatible server, such as vLLM.

pip install llama-index-llms-openai-like
vllm serve Qwen/Qwen2.5-VL-7B-Instruct
python examples/remote_vlm.py query.jpg "the same in red" photos/*.jpg --model Qwen/Qwen2.5-VL-7B-Instruct
python examples/remote_vlm.py ... --strategy first_token --structured-outputs

docs/serving.md says how to serve Phi-3 Vision, and what the two strategies send.
Nothing here needs a vector store: any list of nodes can be reranked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import check_picture
from llama_index.core.schema import NodeWithScore
from llama_index.llms.openai_like import OpenAILike

from llama_index_multimodal_rerank import ImageTextQuery, LlamaIndexVLM, Phi3VisionRerank, image_node

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", type=Path, help="query picture")
parser.add_argument("text", help="what to look for, in words about the query picture")
parser.add_argument("candidates", type=Path, nargs="+", help="pictures to rank")
parser.add_argument("--model", required=True, help="name of the served model")
parser.add_argument("--api-base", default="http://localhost:8000/v1")
parser.add_argument("--api-key", default="none")
parser.add_argument("--top-n", type=int, default=3)
parser.add_argument("--strategy", choices=["listwise", "first_token"], default="listwise")
parser.add_argument("--structured-outputs", action="store_true", help="the server is vLLM 0.12 or later")
options = parser.parse_args()
check_picture(parser, "image", options.image)
for candidate in options.candidates:
    check_picture(parser, "candidates", candidate)

llm = OpenAILike(
    model=options.model,
    api_base=options.api_base,
    api_key=options.api_key,
    is_chat_model=True,  # without it LlamaIndex drops the pictures, so LlamaIndexVLM refuses it
    max_tokens=512,
    temperature=0,
    max_retries=0,  # LlamaIndexVLM retries
)
rerank = Phi3VisionRerank(
    model=LlamaIndexVLM(llm, timeout=60, max_retries=3, structured_outputs=options.structured_outputs),
    strategy=options.strategy,
    top_n=options.top_n,
    on_bad_answer="retry",  # ask again when candidates are left out, then repair
    on_error="keep_order",  # a server that is down costs the reranking, not the results
)
nodes = [NodeWithScore(node=image_node(path)) for path in options.candidates]
hits = rerank.postprocess_nodes(nodes, ImageTextQuery(options.text, image_path=str(options.image)))

for rank, hit in enumerate(hits, start=1):
    print(f"  {rank}. {hit.score:.3f}  {hit.node.metadata['file_name']}")
print("Why the first is the first:", hits[0].node.metadata.get("rerank_reason"))
print("Audit:", hits[0].node.metadata["rerank_audit"])
