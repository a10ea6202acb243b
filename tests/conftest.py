"""Pictures every test module needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.drawing import draw_picture
from support.golden import SETS, golden_root
from support.visualized_bge_golden import TINY_BERT, config, write_folder

from llama_index_multimodal_rerank import VisualizedBGEEmbedding
from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue

pytest_plugins = ["support.machine", "support.workers"]
pytest.register_assert_rewrite(
    "support.catalogue_behaviour", "support.milvus_behaviour", "support.milvus_filters"
)

# Speed is no subject of tests: a busy machine must not fail them.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Recipes and benchmarks are in the repository, not in the package. Behind all else, so that the package under
# test is the installed one.
sys.path.append(str(Path(__file__).parent.parent))


def pytest_report_header() -> str:
    return "golden sets: " + ", ".join(str(golden_root(name) / name) for name in SETS)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Six different pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"picture-{i}.png" for i in range(6)]
    for seed, path in enumerate(paths):
        draw_picture(seed).save(path)
    return paths


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the drawn catalogue, 900 pictures; do not change it."""
    folder = tmp_path_factory.mktemp("drawn") / "catalogue"
    draw_catalogue(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the golden set's small Visualized BGE on BERT, of seeded weights."""
    return write_folder(tmp_path_factory.mktemp("tiny-bert") / "model", TINY_BERT)


@pytest.fixture(scope="session")
def embed_model(tiny_checkpoint: Path) -> VisualizedBGEEmbedding:
    """A loaded tiny model; do not change its fields."""
    model = VisualizedBGEEmbedding(model_name=str(tiny_checkpoint), device="cpu", dtype="float32")
    assert model.dim == config(TINY_BERT).text.hidden_size
    return model


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call of Visualized BGE has embedded, as tests go on."""
    counts: list[int] = []
    encode = VisualizedBGEEmbedding.encode

    def counting(self: Any, items: Any, **kwargs: Any) -> Any:
        counts.append(len(items))
        return encode(self, items, **kwargs)

    monkeypatch.setattr(VisualizedBGEEmbedding, "encode", counting)
    return counts
