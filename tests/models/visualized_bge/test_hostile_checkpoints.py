"""Checkpoints that somebody spoilt, or made to do harm: each is refused with a documented error."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from llama_index_multimodal_rerank.demo.checkpoints import checkpoint_folder
from llama_index_multimodal_rerank.models.errors import CheckpointError, ModelFilesError
from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE
from llama_index_multimodal_rerank.models.visualized_bge.configuration import VisualizedBGEConfig

SOURCE = checkpoint_folder("embedder")
CONFIG = json.loads((SOURCE / "config.json").read_text())
TOKENIZER = json.loads((SOURCE / "tokenizer.json").read_text())
ODD_VALUES = [None, "x", "", -1, 0, 1.5, 10**30, True, [], {}, math.nan, math.inf]
FIELDS = [
    *((name,) for name in CONFIG),
    *((part, name) for part in ("text_config", "vision_config") for name in CONFIG[part]),
]

Files = Mapping[str, bytes]


def load(folder: Path, files: Files) -> VisualizedBGE:
    shutil.copytree(SOURCE, folder)
    if any(name.endswith(".pth") for name in files):
        (folder / "model.safetensors").unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return VisualizedBGE.from_pretrained(folder, device="cpu", dtype="float32")


def changed(content: Mapping[str, Any], *path: str, to: Any) -> bytes:
    data = part = copy.deepcopy(dict(content))
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    return json.dumps(data).encode()


def right(value: Any, old: Any) -> bool:
    """Whether an odd value is a possible one, all the same."""
    if isinstance(old, str):
        return isinstance(value, str) and value != ""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(old, float):
        return (whole or isinstance(value, float)) and 0 < value < math.inf
    return whole and value == old == 0


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_values_of_the_configuration(path: tuple[str, ...]) -> None:
    old = CONFIG[path[0]] if len(path) == 1 else CONFIG[path[0]][path[1]]
    for value in ODD_VALUES:
        data = json.loads(changed(CONFIG, *path, to=value))
        if path[-1] != "model_type" and right(value, old):
            VisualizedBGEConfig.from_dict(data)
            continue
        with pytest.raises(ValueError, match=f"{path[-1]}|Config lacks"):
            VisualizedBGEConfig.from_dict(data)


GROW_NOTHING = ("pad_token_id", "num_attention_heads", "rope_grid_size")
SIZES = [
    (part, name)
    for part in ("text_config", "vision_config")
    for name, value in CONFIG[part].items()
    if isinstance(value, int) and name not in GROW_NOTHING
]


@pytest.mark.parametrize("path", SIZES, ids=".".join)
def test_sizes_are_compared_with_the_file_before_anything_is_built(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any) -> None:
        raise AssertionError("a model of this size was built")

    monkeypatch.setattr("llama_index_multimodal_rerank.models.visualized_bge.encoder.meta_model", build)
    with pytest.raises(ValueError, match=r"vocab_size|hidden_size|do not fit|not a multiple|patches"):
        load(tmp_path / "model", {"config.json": changed(CONFIG, *path, to=2**20)})


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key: change(tensor)
        for key, tensor in safetensors.torch.load_file(SOURCE / "model.safetensors").items()
    }


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02]" + b"N" * 50_000_000)
        archive.writestr("archive/version", "3")
    return file.getvalue()


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made by a checkpoint",)


def template(ids: list[int]) -> dict[str, Any]:
    ends = {"id": "[SEP]", "ids": ids, "tokens": ["[SEP]"] * len(ids)}
    starts = {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}
    return {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {"[CLS]": starts, "[SEP]": ends},
    }


def replacing(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


WEIGHTS = (SOURCE / "model.safetensors").read_bytes()
CASES: dict[str, tuple[Callable[[], Files], type[Exception], str]] = {
    "deep configuration": (lambda: {"config.json": b"[" * 100_000}, ValueError, "nested too deeply"),
    "deep object": (lambda: {"config.json": b'{"a":' * 100_000}, ValueError, "nested too deeply"),
    "unknown activation": (
        lambda: {"config.json": changed(CONFIG, "text_config", "hidden_act", to="x")},
        ValueError,
        "hidden_act is 'x'",
    ),
    "narrow heads": (
        lambda: {"config.json": changed(CONFIG, "vision_config", "num_attention_heads", to=64)},
        ValueError,
        "heads are 2 wide",
    ),
    "parameters on no device": (
        lambda: {"model.pth": saved(weights(lambda tensor: tensor.to("meta")))},
        CheckpointError,
        r"other kinds than plain numbers in memory: .*\(meta\)",
    ),
    "sparse tensors": (
        lambda: {"model.pth": saved(weights(torch.Tensor.to_sparse))},
        CheckpointError,
        "torch.sparse_coo",
    ),
    "packed checkpoint": (lambda: {"model.pth": bomb()}, CheckpointError, "data.pkl in it is compressed"),
    "a command": (
        lambda: {"model.pth": pickle.dumps(Command(), protocol=2)},
        CheckpointError,
        "was not unpickled",
    ),
    "complex numbers": (
        lambda: {"model.pth": saved(weights(lambda tensor: tensor.to(torch.complex64)))},
        CheckpointError,
        "complex64",
    ),
    "cut header": (lambda: {"model.safetensors": WEIGHTS[:100]}, CheckpointError, "broken download"),
    "cut numbers": (lambda: {"model.safetensors": WEIGHTS[:-1]}, CheckpointError, "broken download"),
    "an id far away": (
        lambda: {"tokenizer.json": changed(TOKENIZER, "post_processor", to=template([99_999]))},
        ValueError,
        "ids from 2 to 99999, and the model has 319 rows",
    ),
    "many special tokens": (
        lambda: {"tokenizer.json": changed(TOKENIZER, "post_processor", to=template([3] * 1000))},
        ValueError,
        "puts 1001 special tokens around a text",
    ),
    "no special tokens": (
        lambda: {"tokenizer.json": changed(TOKENIZER, "post_processor", to=None)},
        ValueError,
        "puts 0 special tokens around a text",
    ),
    "a normaliser that inserts": (
        lambda: {"tokenizer.json": changed(TOKENIZER, "normalizer", to=replacing("a", "a" * 10**7))},
        ModelFilesError,
        "puts a text of 10000000 characters in the place of others",
    ),
    "such a one in a sequence": (
        lambda: {
            "tokenizer.json": changed(
                TOKENIZER,
                "normalizer",
                to={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 10**7}]},
            )
        },
        ModelFilesError,
        "puts a text of 10000000 characters in the place of others",
    ),
}


@pytest.mark.parametrize(("files", "error", "message"), CASES.values(), ids=CASES.keys())
def test_what_is_refused(
    files: Callable[[], Files],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load(tmp_path / "model", files())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_pattern_that_cannot_be_matched_is_an_error_of_that_text(tmp_path: Path) -> None:
    """The tokenizers library panics, which is no ``Exception`` and would end the thread."""
    endless = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
    model = load(tmp_path / "model", {"tokenizer.json": changed(TOKENIZER, "normalizer", to=endless)})

    with pytest.raises(ValueError, match=r"The tokenizer cannot read a text: .*retry-limit"):
        model.encode(["a" * 40 + "!"])
    assert model.encode(["a cup"]).shape == (1, 128)


@pytest.mark.parametrize("length", ["x", [], {}, None, 3], ids=str)
def test_the_length_that_a_tokenizer_claims_is_not_read(tmp_path: Path, length: Any) -> None:
    settings = json.loads((SOURCE / "tokenizer_config.json").read_text())
    model = load(
        tmp_path / "model", {"tokenizer_config.json": changed(settings, "model_max_length", to=length)}
    )
    assert model.encode(["a red cup with a blue stripe"]).shape == (1, 128)


def test_parameters_are_read_as_numbers(tmp_path: Path) -> None:
    files = {"model.pth": saved(weights(lambda tensor: torch.nn.Parameter(tensor)))}
    items = ["a cup", ("a cup", Image.new("RGB", (50, 50), "red"))]
    expected = VisualizedBGE.from_pretrained(SOURCE, device="cpu", dtype="float32").encode(items)
    assert (load(tmp_path / "model", files).encode(items) == expected).all()
