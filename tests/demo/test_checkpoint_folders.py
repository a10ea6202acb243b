"""The name "demo" stands for what comes with the package, never for what happens to lie around."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from support.visualized_bge_golden import TINY_BERT, config

from llama_index_multimodal_rerank import VisualizedBGEEmbedding
from llama_index_multimodal_rerank.demo import checkpoints
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from llama_index_multimodal_rerank.vlm.phi3_vision import LocalPhi3Vision

DIM = config(TINY_BERT).text.hidden_size


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in the place of the package, without checkpoints."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "files", lambda _package: folder)
    checkpoints.checkpoint_folder.cache_clear()
    yield folder
    checkpoints.checkpoint_folder.cache_clear()


def test_demo_is_in_the_package_and_not_in_the_current_folder(
    package: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_checkpoint, package / "embedder")
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert VisualizedBGEEmbedding(model_name="demo", device="cpu").dim == DIM
    with pytest.raises(OSError, match="The folder demo holds 0 weights files"):
        _ = VisualizedBGEEmbedding(model_name="./demo", device="cpu").dim


def test_demo_asks_no_hub(package: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_args: object, **_kwargs: object) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    shutil.copytree(tiny_checkpoint, package / "embedder")
    vector = VisualizedBGEEmbedding(model_name="demo", device="cpu").get_text_embedding("a mug")
    assert len(vector) == DIM


def test_missing_checkpoint_says_what_to_do(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"embedder is not in this installation.*training\.embedder"):
        _ = VisualizedBGEEmbedding(model_name="demo").model

    with pytest.raises(FileNotFoundError, match=r"reranker is not in this installation.*training\.reranker"):
        LocalPhi3Vision("demo").load()


def test_the_demos_reranker_loads_whole_with_every_transformers() -> None:
    """Releases differ in the tower's vision_model level; all read the released names, which have it."""
    folder = checkpoints.checkpoint_folder("reranker")
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        tower = [name for name in tensors.keys() if ".img_processor." in name]  # noqa: SIM118
    assert tower
    assert all(".img_processor.vision_model." in name for name in tower)
    _, info = Phi3VisionForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_the_demos_reranker_looks_at_the_one_tile_that_it_was_trained_on() -> None:
    assert LocalPhi3Vision("demo").num_crops == 1
    assert LocalPhi3Vision("./demo").num_crops == 16


def test_the_demos_embedder_in_the_released_format_is_the_same_model(tmp_path: Path) -> None:
    """Visualized BGE is released as a PyTorch file; the one beside this test was written by the recipe."""
    ours = checkpoints.checkpoint_folder("embedder")
    assert not list(ours.glob("*.pth"))  # once in the package is enough
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ours / file, tmp_path)
    shutil.copy(Path(__file__).parent / "Visualized_demo.pth", tmp_path)
    released, demo = (
        VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32") for folder in (tmp_path, ours)
    )
    assert released.fingerprint == demo.fingerprint
    text = "a red mug with dots"
    np.testing.assert_array_equal(released.encode([text]), demo.encode([text]))
