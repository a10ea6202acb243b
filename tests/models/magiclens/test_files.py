"""From names to files: paths, released names, the hub; and conversion to safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from support.drawing import draw_picture
from support.magiclens_golden import TINY, config, seeded_model, write_folder

from llama_index_multimodal_rerank.models.hub import HubOptions
from llama_index_multimodal_rerank.models.magiclens import (
    CheckpointError,
    MagicLens,
    MagicLensConfig,
    ModelFilesError,
    convert_checkpoint,
    files,
)
from llama_index_multimodal_rerank.models.magiclens.files import open_model_files

NAMES = {"magiclens-base": "magic_lens_clip_base.pkl", "magiclens-large": "magic_lens_clip_large.pkl"}


def load(place: Path | str, **options: Any) -> MagicLens:
    return MagicLens.from_pretrained(place, device="cpu", dtype="float32", **options)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint in the released format; do not change it."""
    return write_folder(tmp_path_factory.mktemp("released") / "model", TINY[0])


def vectors(lens: MagicLens) -> np.ndarray:
    return lens.encode([draw_picture(0), ("the same, but red", draw_picture(1))])


def test_pickle_folder_conversion_and_save_give_the_same_model(released: Path, tmp_path: Path) -> None:
    original = load(released / "model.pkl")
    expected = vectors(original)
    # not bit for bit: at other addresses libraries choose other kernels
    np.testing.assert_allclose(vectors(seeded_model(TINY[0])), expected, rtol=0, atol=2e-6)
    place = convert_checkpoint(released / "model.pkl", tmp_path / "converted")
    assert sorted(file.name for file in place.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    original.save_pretrained(tmp_path / "saved")
    for again in (load(released), load(place), load(place / "model.safetensors"), load(tmp_path / "saved")):
        assert again.fingerprint == original.fingerprint
        np.testing.assert_allclose(vectors(again), expected, rtol=0, atol=2e-6)


def test_conversion_keeps_the_types_of_the_file(released: Path, tmp_path: Path) -> None:
    place = convert_checkpoint(released / "model.pkl", tmp_path / "converted")
    tensors = safetensors.torch.load_file(place / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    half = MagicLens.from_pretrained(place, device="cpu", dtype="bfloat16")
    half.save_pretrained(tmp_path / "half")
    tensors = safetensors.torch.load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if name.startswith("clip.")} == {torch.bfloat16}
    assert load(tmp_path / "half").fingerprint != half.fingerprint  # rounded


@pytest.mark.parametrize("name", NAMES)
def test_released_names_are_looked_for_in_the_cache_folder(
    released: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RELEASED_FILES", NAMES)
    with pytest.raises(ModelFilesError) as caught:
        load(name, cache_folder=tmp_path)
    message = str(caught.value)
    assert f"gcloud storage cp gs://gresearch/magiclens/models/{NAMES[name]} {tmp_path}" in message
    assert f"model_name='/your/folder/{NAMES[name]}'" in message
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(released / file, tmp_path / file)
    shutil.copyfile(released / "model.pkl", tmp_path / NAMES[name])
    found = load(name, cache_folder=tmp_path)
    assert found.fingerprint == load(released).fingerprint
    converted = tmp_path / name
    assert convert_checkpoint(tmp_path / NAMES[name], converted) == converted
    (tmp_path / NAMES[name]).unlink()
    assert load(name, cache_folder=tmp_path).fingerprint == found.fingerprint


def test_converted_beside_the_file_under_the_models_name(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(released, folder)
    assert convert_checkpoint(folder / "model.pkl") == folder / TINY[0]


def test_the_packages_tokenizer_is_taken_where_there_is_none(released: Path, tmp_path: Path) -> None:
    shutil.copyfile(released / "model.pkl", tmp_path / "a.pkl")
    shutil.copyfile(released / "config.json", tmp_path / "config.json")
    found = open_model_files(tmp_path / "a.pkl", HubOptions())
    assert found.tokenizer_folder == files.TOKENIZER_FOLDER
    assert (files.TOKENIZER_FOLDER / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_a_repository_on_the_hub(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = convert_checkpoint(released / "model.pkl", tmp_path / "converted")
    calls: list[tuple[str, str, str | None]] = []

    def download(repo: str, name: str, *, revision: str | None, **_: Any) -> str:
        calls.append((repo, name, revision))
        return str(place / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load("someone/magiclens", revision="v2").fingerprint == load(place).fingerprint
    assert calls == [
        ("someone/magiclens", name, "v2")
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    ]


def test_hub_without_network(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"hf download someone/magiclens config\.json"):
        load("someone/magiclens", cache_folder=tmp_path)


@pytest.mark.parametrize("name", ["magiclens", "no/such/path", "", "MagicLens-base"])
def test_unknown_names_list_the_allowed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFilesError, match="nor one of magiclens-base, magiclens-large"):
        load(name)


def test_a_revision_of_a_path_is_refused(released: Path) -> None:
    with pytest.raises(ValueError, match="revision='v1' is for models of the hub"):
        load(released, revision="v1")


def test_folders_without_weights_and_with_two(released: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"expected model\.safetensors.*\.pkl"):
        load(tmp_path)
    for name in ("a.pkl", "b.pkl"):
        shutil.copyfile(released / "model.pkl", tmp_path / name)
    with pytest.raises(ModelFilesError, match=r"holds 2 weights files.*a\.pkl, b\.pkl"):
        load(tmp_path)


def test_weights_of_another_model_or_without_a_configuration(released: Path, tmp_path: Path) -> None:
    place = convert_checkpoint(released / "model.pkl", tmp_path / "converted")
    other = config(TINY[1]).to_dict()
    (place / "config.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: The weights do not fit the model"):
        load(place)
    (place / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json beside it"):
        load(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "clip"}, "model_type 'clip'; expected 'magiclens'"),
        ({"extra": 1}, "unknown fields extra"),
        ({"fusion_config": {}}, "FusionConfig lacks hidden_size"),
    ],
)
def test_configurations_are_read_strictly(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = config(TINY[0]).to_dict() | change
    (tmp_path / "config.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        MagicLensConfig.from_json_file(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("text_config", "num_hidden_layers", 2**24, "layers, and the file has"),
        ("vision_config", "hidden_size", 2**20, "do not fit|cannot be a model's"),
        ("vision_config", "image_size", 2**24, "do not fit|cannot be a model's|not a multiple"),
        ("fusion_config", "hidden_size", 0, "hidden_size=0; expected a whole number from 1"),
        ("fusion_config", "hidden_size", "8", "hidden_size='8'; expected a whole number"),
    ],
)
@pytest.mark.parametrize("converted", [False, True])
def test_sizes_that_the_file_does_not_have(
    released: Path, tmp_path: Path, part: str, field: str, value: Any, message: str, converted: bool
) -> None:
    if converted:
        place = convert_checkpoint(released / "model.pkl", tmp_path / "model")
    else:
        place = Path(shutil.copytree(released, tmp_path / "model"))
    data = config(TINY[0]).to_dict()
    data[part] = data[part] | {field: value}
    (place / "config.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load(place)


def test_configurations_that_cannot_be() -> None:
    data = config(TINY[0]).to_dict()
    for part, field, value, message in (
        ("text_config", "eos_token_id", 5, "must be the largest id"),
        ("text_config", "num_attention_heads", 7, "not a multiple of its 7 heads"),
        ("vision_config", "patch_size", 15, "not a multiple of patch_size"),
        ("fusion_config", "pooler_size", 131, "pooler hidden_size 131"),
    ):
        changed = data | {part: data[part] | {field: value}}
        with pytest.raises(ValueError, match=message):
            MagicLensConfig.from_dict(changed)
