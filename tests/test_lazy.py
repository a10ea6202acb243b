"""Models in forked processes: they answer or say what to do instead, and never wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

CHILD = """
import os, signal, sys
import torch
from PIL import Image
from llama_index.core.schema import NodeWithScore
from llama_index_multimodal_rerank import (
    ImageText, ImageTextQuery, LocalPhi3Vision, Phi3VisionRerank, VisualizedBGEEmbedding, image_node
)

torch.set_num_threads(2)
RED = Image.new("RGB", (300, 300), "red")
options = dict(device="cpu", dtype="float32")

def embed(model=VisualizedBGEEmbedding(model_name="demo", **options)):
    return model.get_text_embedding_batch([ImageText("a cup", RED)] * 32)

def embed_with_another():
    return embed(VisualizedBGEEmbedding(model_name="demo", **options))

def rerank(model=Phi3VisionRerank(model=LocalPhi3Vision("demo", **options))):
    nodes = [NodeWithScore(node=image_node(RED, metadata={'place': i}), score=0.5) for i in range(2)]
    found = model.postprocess_nodes(nodes, query_bundle=ImageTextQuery("a cup"))
    return sorted(hit.node.metadata['place'] for hit in found)

parent, child, threads = sys.argv[1:]
if parent != "nothing":
    globals()[parent]()
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
signal.alarm(180)  # ends a child that waits for ever
torch.set_num_threads(int(threads))
try:
    globals()[child]()
    print("made")
except Exception as error:
    print(type(error).__name__, error)
sys.stdout.flush()
os._exit(0)
"""


def run(parent: str, child: str, threads: int) -> str:
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, parent, child, str(threads)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, root])},
        check=False,
    )
    assert done.returncode == 0, f"signal {-done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("parent", "child"),
    [("embed", "embed"), ("embed", "embed_with_another"), ("rerank", "rerank"), ("rerank", "embed")],
)
@pytest.mark.parametrize("threads", [1, 2])  # with one thread, MKL waited for ever in one of six children
def test_a_forked_child_says_what_to_do_instead(parent: str, child: str, threads: int) -> None:
    said = run(parent, child, threads)
    assert said.startswith("ForkedProcessError Process ")
    for way_out in ("'spawn'", "--preload"):
        assert way_out in said


def test_a_child_forked_before_any_model_was_loaded_computes_in_all_threads() -> None:
    assert run("nothing", "embed", threads=2) == "made"
