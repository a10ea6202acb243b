from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from huggingface_hub import constants
from support import magiclens_golden

from llama_index_multimodal_rerank.models.magiclens import MagicLens

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small models run on one thread: handing their work to others takes longer than the work."""
    threads = torch.get_num_threads()
    if not any(name in request.node.name for name in magiclens_golden.models(full_size=True)):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def load() -> Callable[[str], MagicLens]:
    """A model with seeded weights in float32 on the CPU, made once a session."""
    models: dict[str, MagicLens] = {}

    def load_model(name: str) -> MagicLens:
        if name not in models:
            models[name] = magiclens_golden.seeded_model(name)
        return models[name]

    return load_model


@pytest.fixture(scope="session")
def tiny(load: Callable[[str], MagicLens]) -> MagicLens:
    return load(magiclens_golden.TINY[0])
