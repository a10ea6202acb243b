"""From a name to the files: the hub's cache, a folder, a file; and clear words where nothing is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from support.visualized_bge_golden import (
    FULL_BASE,
    NO_FULL_SIZE,
    TINY,
    TINY_BERT,
    TINY_XLMR,
    case_of,
    config,
    copy_tokenizer,
    golden,
    write_folder,
)

from llama_index_multimodal_rerank.models.hub import HubOptions
from llama_index_multimodal_rerank.models.visualized_bge import (
    BASE_EN_V1_5,
    M3,
    CheckpointError,
    ModelFilesError,
    VisualizedBGE,
)
from llama_index_multimodal_rerank.models.visualized_bge.files import open_model_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE_NAMES = (
    "BAAI/bge-visualized",
    "BAAI/bge-visualized-base-en-v1.5",
    "Visualized_base_en_v1.5.pth",
)
M3_NAMES = ("BAAI/bge-visualized-m3", "Visualized_m3.pth")
needs_full_base = pytest.mark.skipif(FULL_BASE is None, reason=NO_FULL_SIZE)


def put_into_cache(cache: Path, repo: str, revision: str = "main") -> Path:
    """Lay out a repository as huggingface_hub caches it; returns the folder for its files."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    copy_tokenizer(TINY_BERT, put_into_cache(folder, "BAAI/bge-base-en-v1.5"))
    copy_tokenizer(TINY_XLMR, put_into_cache(folder, "BAAI/bge-m3"))
    weights = put_into_cache(folder, "BAAI/bge-visualized")
    torch.save({"which": torch.zeros(1)}, weights / "Visualized_base_en_v1.5.pth")
    torch.save({"which": torch.ones(1)}, weights / "Visualized_m3.pth")
    return folder


@pytest.mark.parametrize("name", [*BASE_NAMES, *M3_NAMES])
def test_released_names_in_the_cache(cache: Path, name: str) -> None:
    files = open_model_files(name, HubOptions(cache_folder=str(cache), local_files_only=True))
    m3 = name in M3_NAMES
    assert files.config is (M3 if m3 else BASE_EN_V1_5)
    assert files.tensors["which"].item() == m3
    assert (files.tokenizer_folder / "tokenizer.json").is_file()
    assert ("bge-m3" in str(files.tokenizer_folder)) == m3


def test_revision_is_that_of_the_weights(cache: Path) -> None:
    hub = HubOptions(cache_folder=str(cache), local_files_only=True, revision="v2")
    with pytest.raises(ModelFilesError, match="--revision v2"):
        open_model_files("BAAI/bge-visualized", hub)
    put_into_cache(cache, "BAAI/bge-visualized", revision="v2")
    assert open_model_files("BAAI/bge-visualized", hub).config is BASE_EN_V1_5


@pytest.mark.parametrize("local_files_only", [True, None])
def test_offline_with_an_empty_cache(tmp_path: Path, local_files_only: bool | None) -> None:
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        VisualizedBGE.from_pretrained(cache_folder=tmp_path, local_files_only=local_files_only)
    message = str(caught.value)
    assert isinstance(caught.value, ModelFilesError)
    assert f"the cache folder {tmp_path}" in message
    assert f"hf download BAAI/bge-visualized Visualized_base_en_v1.5.pth --cache-dir {tmp_path}" in message
    assert "hf download BAAI/bge-base-en-v1.5 tokenizer.json tokenizer_config.json" in message


class _HttpLibraryError(Exception):
    """The errors of the HTTP library are neither OSErrors nor the hub's."""


@pytest.mark.parametrize("error", [ConnectionError("no route"), _HttpLibraryError("read timed out")])
def test_hub_unreachable(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ModelFilesError, match=f"{type(error).__name__}: {error}") as caught:
        VisualizedBGE.from_pretrained("BAAI/bge-visualized-m3")
    assert caught.value.__cause__ is error
    assert "hf download BAAI/bge-visualized Visualized_m3.pth\n" in str(caught.value)


def test_options_reach_the_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = []
    original = huggingface_hub.hf_hub_download

    def record(repo: str, name: str, **options: Any) -> str:
        calls.append((repo, name, dict(options)))
        return original(repo, name, cache_dir=cache, local_files_only=True)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", record)
    hub = HubOptions(cache_folder="c", revision="r", local_files_only=None, token="t")
    open_model_files("BAAI/bge-visualized", hub)
    assert [(repo, name, options["revision"]) for repo, name, options in calls] == [
        ("BAAI/bge-base-en-v1.5", "tokenizer.json", None),
        ("BAAI/bge-base-en-v1.5", "tokenizer_config.json", None),
        ("BAAI/bge-visualized", "Visualized_base_en_v1.5.pth", "r"),
    ]
    assert all(
        (options["cache_dir"], options["token"], options["local_files_only"]) == ("c", "t", False)
        for _, _, options in calls
    )


@pytest.mark.parametrize("name", ["BAAI/bge-m4", "no/such/path", "bge-visualized", ""])
def test_unknown_name_lists_the_allowed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFilesError) as caught:
        VisualizedBGE.from_pretrained(name)
    for allowed in (*BASE_NAMES, *M3_NAMES):
        assert allowed in str(caught.value)


def test_file_of_a_folder(model_folder: Callable[[str], Path], tiny: VisualizedBGE) -> None:
    path = model_folder(TINY_BERT) / "model.safetensors"
    assert VisualizedBGE.from_pretrained(str(path)).fingerprint == tiny.fingerprint


def test_revision_of_a_path_is_refused(model_folder: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="revision='main' is for models of the hub"):
        VisualizedBGE.from_pretrained(model_folder(TINY_BERT), revision="main")


@needs_full_base
@pytest.mark.parametrize("config_beside", ["none", "text model"])
def test_released_weights_without_our_config(
    model_folder: Callable[[str], Path], tmp_path: Path, config_beside: str
) -> None:
    (tmp_path / "Visualized_base_en_v1.5.pth").symlink_to(model_folder(FULL_BASE) / "model.safetensors")
    copy_tokenizer(TINY_BERT, tmp_path)
    if config_beside == "text model":  # as it lies in BAAI/bge-base-en-v1.5
        fields = {**vars(BASE_EN_V1_5.text), "architectures": ["BertModel"], "classifier_dropout": None}
        (tmp_path / "config.json").write_text(json.dumps(fields))
    bge = VisualizedBGE.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert bge.model.config == BASE_EN_V1_5
    case = case_of(FULL_BASE, "text")
    expected = golden(FULL_BASE)[f"{case['id']}/embedding"]
    embedding = bge.encode(case["texts"])
    np.testing.assert_allclose(embedding, expected, rtol=0, atol=5e-6)


@needs_full_base
def test_tokenizer_of_released_weights_comes_from_the_hub(
    model_folder: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "Visualized_base_en_v1.5.pth"
    path.symlink_to(model_folder(FULL_BASE) / "model.safetensors")
    files = open_model_files(path, HubOptions(cache_folder=str(cache), local_files_only=True))
    assert "bge-base-en-v1.5" in str(files.tokenizer_folder)
    with pytest.raises(ModelFilesError, match=r"tokenizer\.json of BAAI/bge-base-en-v1\.5"):
        open_model_files(path, HubOptions(cache_folder=str(tmp_path / "no"), local_files_only=True))


def test_unknown_weights_need_a_config(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    (folder / "config.json").unlink()
    text = config(TINY_BERT).text
    words = rf"\({text.vocab_size}, {text.hidden_size}\)"
    with pytest.raises(CheckpointError, match=rf"no config\.json beside it.*{words}.*\(30522, 768\)"):
        VisualizedBGE.from_pretrained(folder)


def test_unknown_weights_need_a_tokenizer(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFilesError, match=r"no tokenizer\.json"):
        VisualizedBGE.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}'])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"tokenizer in .* cannot be read.*download them again"):
        VisualizedBGE.from_pretrained(folder)


def test_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(ModelFilesError, match=r"0 weights files.*Found: readme\.txt"):
        VisualizedBGE.from_pretrained(tmp_path)


def test_folder_with_two_weights_files(tmp_path: Path) -> None:
    for name in ("Visualized_base_en_v1.5.pth", "Visualized_m3.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ModelFilesError, match=r"2 weights files.*m3\.pth\. Name the file"):
        VisualizedBGE.from_pretrained(tmp_path)


@pytest.mark.parametrize("model", TINY)
def test_tokenizer_of_another_model(tmp_path: Path, model: str) -> None:
    folder = write_folder(tmp_path, model)
    copy_tokenizer(TINY_XLMR if model == TINY_BERT else TINY_BERT, folder)
    with pytest.raises(ValueError, match="tokenizer does not belong to"):
        VisualizedBGE.from_pretrained(folder)


def test_folder_is_found_under_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Callable[[str], Path]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(model_folder(TINY_BERT), tmp_path / "model")
    assert VisualizedBGE.from_pretrained("~/model").dim == config(TINY_BERT).text.hidden_size


def test_zero_byte_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TINY_BERT)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        VisualizedBGE.from_pretrained(folder)
