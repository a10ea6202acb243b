from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from support.visualized_bge_golden import FULL, TINY_BERT, write_folder

from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small models run on one thread: handing their work to others takes longer than the work."""
    threads = torch.get_num_threads()
    names = (*FULL, "released_weights")
    if not any(name in request.node.name for name in names):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model with seeded float32 weights, written once a session."""
    folders: dict[str, Path] = {}

    def folder_of(model: str) -> Path:
        if model not in folders:
            folders[model] = write_folder(tmp_path_factory.mktemp(model) / "model", model)
        return folders[model]

    return folder_of


@pytest.fixture(scope="session")
def load(model_folder: Callable[[str], Path]) -> Callable[[str], VisualizedBGE]:
    """A model with seeded weights in float32 on the CPU, loaded once a session."""
    models: dict[str, VisualizedBGE] = {}

    def load_model(model: str) -> VisualizedBGE:
        if model not in models:
            models[model] = VisualizedBGE.from_pretrained(model_folder(model), device="cpu", dtype="float32")
        return models[model]

    return load_model


@pytest.fixture(scope="session")
def tiny(load: Callable[[str], VisualizedBGE]) -> VisualizedBGE:
    return load(TINY_BERT)
