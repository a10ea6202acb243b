"""Tests take float32 and the CPU unless they say otherwise, whatever machine they run on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llama_index.core.schema import NodeWithScore
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import ImageText, Phi3VisionRerank, VisualizedBGEEmbedding, image_node
from llama_index_multimodal_rerank.models.hardware import resolve_device, resolve_dtype
from llama_index_multimodal_rerank.vlm.phi3_vision import LocalPhi3Vision

CPU = torch.device("cpu")
TESTS = Path(__file__).parent


def test_nothing_said_is_float32_on_the_cpu() -> None:
    assert resolve_device(None) == CPU
    for device in (CPU, torch.device("cuda")):
        assert resolve_dtype(None, device) == torch.float32
        assert resolve_dtype("bfloat16", device) == torch.bfloat16


INNER = """
import subprocess
import pytest
from llama_index_multimodal_rerank.models.hardware import resolve_device, resolve_dtype
from support.machine import run_script

CHILD = '''
from llama_index_multimodal_rerank.models.hardware import resolve_device, resolve_dtype
print(resolve_dtype(None, resolve_device(None)))
'''

def found():
    device = resolve_device(None)
    return device.type, str(resolve_dtype(None, device))

@pytest.fixture(scope="session")
def shared():
    return found()

@pytest.mark.hardware_defaults
def test_defaults(shared):
    assert found() == ("cpu", "torch.{dtype}")
    assert shared == ("cpu", "torch.float32")

def test_script(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    done = subprocess.run([*run_script(), str(tmp_path / "child.py")], capture_output=True, text=True)
    assert done.stdout == "torch.{dtype}\\n", done.stderr

def test_pinned(shared):
    assert found() == shared == ("cpu", "torch.float32")
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_as_if_changes_the_defaults_of_those_who_ask_for_them(dtype: str, tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(INNER.replace("{dtype}", dtype))
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "support.machine", "--as-if", dtype, f"--rootdir={tmp_path}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert f"hardware defaults: {dtype} on cpu (pretended)" in done.stdout


@pytest.mark.hardware_defaults
def test_models_follow_the_hardware(
    request: pytest.FixtureRequest,
    embed_model: VisualizedBGEEmbedding,
    tiny_checkpoint: Path,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    """Whatever that is, vectors are close to those in float32, and a reranked list loses nothing."""
    device = resolve_device(None)
    dtype = resolve_dtype(None, device)
    if pretended := request.config.getoption("as_if"):
        assert (device, str(dtype)) == (CPU, f"torch.{pretended}")

    model = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint))
    assert (model.model.device.type, model.model.dtype) == (device.type, dtype)
    texts = ["a mug", ImageText("", pictures[0]), ImageText("a mug", pictures[1])]
    vectors, exact = (np.asarray(each.get_text_embedding_batch(texts)) for each in (model, embed_model))
    # bfloat16 keeps 8 bits: the specification saw cosines above 0.9998 in it
    assert (vectors * exact).sum(axis=1).min() > 0.999

    local = LocalPhi3Vision(str(write_folder(tmp_path / "phi3")), num_crops=1)
    assert local.load().model.dtype == dtype
    nodes = [NodeWithScore(node=image_node(path), score=0.5) for path in pictures]
    hits = Phi3VisionRerank(model=local, top_n=6).postprocess_nodes(nodes, query_str="a mug")
    assert sorted(hit.node.node_id for hit in hits) == sorted(node.node.node_id for node in nodes)
