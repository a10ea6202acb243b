"""Released checkpoints are taken apart, not unpickled; whatever else a file holds is refused."""

from __future__ import annotations

import builtins
import hashlib
import os
import pickle
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from support.flax_writer import pickled_bytes, pickled_tree
from support.golden import PUBLIC
from support.magiclens_golden import (
    CHECKPOINTS,
    GOLDEN,
    INDEX,
    WHOLE_CHECKPOINT,
    WHOLE_MODEL,
    config,
    manifest,
    seeded_array,
)
from support.mutated_checkpoints import CheckpointFuzzer

from llama_index_multimodal_rerank.models.errors import CheckpointError
from llama_index_multimodal_rerank.models.magiclens import LARGE, flax_checkpoint
from llama_index_multimodal_rerank.models.magiclens.flax_checkpoint import FlaxCheckpoint
from llama_index_multimodal_rerank.models.magiclens.state_dict import open_weights

ACCEPTED = [name for name, entry in INDEX.items() if entry["expect"] == "accept"]
REFUSED = [name for name, entry in INDEX.items() if entry["expect"] == "refuse"]

# What each of the public files is refused for.
REASONS = {
    "bad_call.pkl": r"SHORT_BINUNICODE 'builtins', MEMOIZE, SHORT_BINUNICODE 'print', .*STACK_GLOBAL",
    "bad_call_then_bytes.pkl": r"GLOBAL stands at byte 2\. It begins with PROTO 4, GLOBAL 'builtins print'",
    "bad_protocol2.pkl": r"GLOBAL stands at byte 2\. It begins with PROTO 2, GLOBAL '_codecs encode'",
    "bad_dict_of_arrays.pkl": "EMPTY_DICT stands at byte 11",
    "bad_text.pkl": "SHORT_BINUNICODE 'not bytes'",
    "bad_truncated.pkl": r"cut off: 405 bytes are announced at byte 11, 367 follow",
    "bad_truncated_payload.pkl": r"msgpack data are cut off: 111 bytes are announced at byte 276, 105 follow",
    "bad_trailing.pkl": "2 bytes follow behind the msgpack data",
    "bad_two_values.pkl": "a second bytes object begins at byte 413",
    "bad_object_dtype.pkl": r"params/w has the element type 'object'; allowed are float32",
    "bad_short_buffer.pkl": r"params/w has 44 bytes; its shape \(3, 4\) of float32 needs 48",
    "bad_negative_shape.pkl": "params/w has -1 in its shape",
    "bad_ext_type.pkl": "params/w is an ext value of type 42",
    "bad_chunk_missing.pkl": "In the chunks of params/w entry '1' of 2 is missing",
    "bad_chunk_sum.pkl": r"chunks of params/w hold 4 elements; its shape \(5,\) needs 5",
    "bad_no_params.pkl": "no 'params' at its top.* it has 'weights'",
    "bad_list.pkl": "At the top stands a list of 3; expected a map",
    "bad_deep.pkl": "nested more than 32 deep",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_golden_checkpoint_is_read(name: str) -> None:
    checkpoint = FlaxCheckpoint(CHECKPOINTS / name)
    entry = INDEX[name]
    if "model" in entry:
        keys = {each["key"]: tuple(each["shape"]) for each in manifest(entry["model"])["entries"]}
        assert {key: array.shape for key, array in checkpoint.arrays.items()} == keys
        for key, shape in keys.items():
            expected = torch.from_numpy(seeded_array(entry["model"], key, shape))
            assert torch.equal(checkpoint.read(key), expected.reshape(shape)), key
        return
    assert checkpoint.arrays.keys() == entry["arrays"].keys()
    for key, facts in entry["arrays"].items():
        array = checkpoint.read(key)
        assert (list(array.shape), f"{array.dtype}") == (facts["shape"], f"torch.{facts['dtype']}")
        data = array.view(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b""
        assert hashlib.sha256(data).hexdigest() == facts["sha256"], key


@pytest.mark.parametrize("name", REFUSED)
def test_golden_checkpoint_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("something was unpickled")

    for function in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, function, never)
    monkeypatch.setattr(builtins, "print", never)  # what two of the files call
    monkeypatch.setattr(flax_checkpoint.FlaxCheckpoint, "read", never)  # refused before any number is read
    with pytest.raises(CheckpointError, match=REASONS.get(name, ".")) as caught:
        open_weights(CHECKPOINTS / name, config(WHOLE_MODEL))
    assert str(CHECKPOINTS / name) in str(caught.value)
    assert capsys.readouterr().out == ""


def test_all_public_files_have_a_reason() -> None:
    if GOLDEN == PUBLIC / "magiclens":
        assert set(REFUSED) == REASONS.keys()


def map_of(**values: bytes) -> bytes:
    """A msgpack map of at most 15 encoded values."""
    entries = (bytes([0xA0 | len(name)]) + name.encode() + value for name, value in values.items())
    return bytes([0x80 | len(values)]) + b"".join(entries)


def array(shape: bytes, dtype: bytes = b"\xa7float32", data: bytes = b"\xc4\x04\0\0\0\0") -> bytes:
    inner = b"\x93" + shape + dtype + data
    return b"\xc7" + bytes([len(inner)]) + b"\x01" + inner


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "cut off: 1 bytes are announced"),
        (b"\x01", "At the top stands 1; expected a map"),
        (array(b"\x91\x01"), "At the top stands an ext value of type 1"),
        (map_of(params=b"\xc0"), "At params stands None; expected a map or an array"),
        (map_of(params=map_of(w=b"\xca\0\0\0\0")), "stands float32, which is no part"),
        (map_of(params=map_of(w=b"\xc1")), "stands the byte 0xc1"),
        (b"\x81\x01\x01", "a map's key is 1; expected a text"),
        (b"\x82\xa1a\x80\xa1a\x80", "has the key 'a' for the second time"),
        (b"\x81\xa1\xff\x80", "is not UTF-8"),
        (b"\x81\xda\xff\xff" + b"a" * 65535 + b"\x80", "has 65535 bytes; at most 1024"),
        (b"\x81\xa3a/b" + array(b"\x91\x01"), "'a/b' in the top is no name"),
        (b"\x81\xa2\x1b[" + array(b"\x91\x01"), r"'\\x1b\[' in the top is no name"),
        (b"\xdf\xff\xff\xff\xff", "cut off"),
        (b"\xdd\xff\xff\xff\xff" + b"\xc0" * 9, "cut off"),
        (map_of(params=array(b"\x91\xcf" + b"\xff" * 8)), "in its shape"),
        (map_of(params=array(b"\x91\xc3")), "True in its shape"),
        (map_of(params=array(b"\x93\0" + b"\xce\xff\xff\xff\xff" * 2, data=b"\xc4\0")), "elements"),
        (map_of(params=array(b"\x99" + b"\x01" * 9)), "8 dimensions"),
        (map_of(params=array(b"\x01")), "1 for its shape"),
        (map_of(params=array(b"\x91\x01", dtype=b"\x01")), "the element type 1"),
        (map_of(params=array(b"\x91\x01", data=b"\xc0")), "None where its bytes are expected"),
        (map_of(params=b"\xc7\x01\x01\x90"), "made of a list of 0; expected a list of three"),
        (b"\x81\xa6params\xde\x27\x10" + b"\xa1a\x01", "cut off"),
    ],
)
def test_damaged_contents_are_refused_with_their_reason(payload: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickled_bytes(payload))
    with pytest.raises(CheckpointError, match=message):
        FlaxCheckpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "nothing, it is empty"),
        (b"hello", r"CheckpointError|stands at byte 0"),
        (b"\xff\xfe", r"the unknown opcode b'\\xff' stands at byte 0"),
        (b"\x80\x04.", "ends at byte 2 without any bytes"),
        (b"\x80\x04" + b"\x94" * 40, "more than 16 opcodes"),
        (b"\x80\x04B\x01", "cut off in a length"),
        (b"\x80\x04\x8e" + b"\xff" * 8, "cut off: 18446744073709551615 bytes are announced"),
        (b"\x80\x04\x95\x01", "cut off at byte 4"),
        (pickled_bytes(b"\x80") + b".", "1 bytes follow behind its end"),
        (b"version https://git-lfs.github.com/spec/v1\n", "BINFLOAT|stands at byte 0|unknown opcode"),
        (pickle.dumps(Path.touch), "STACK_GLOBAL"),
    ],
)
def test_other_pickles_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        FlaxCheckpoint(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pkl")
    with pytest.raises(CheckpointError, match=r"a\.pkl is not a file"):
        FlaxCheckpoint(tmp_path / "a.pkl")
    with pytest.raises(FileNotFoundError):
        FlaxCheckpoint(tmp_path / "b.pkl")


def test_too_many_values_are_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickled_bytes(b"\xdd" + struct.pack(">I", 200_000) + b"\xc0" * 200_000))
    with pytest.raises(CheckpointError, match="more than 100000 values"):
        FlaxCheckpoint(path)


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "micro.pkl"
    shutil.copyfile(WHOLE_CHECKPOINT, path)
    weights = open_weights(path, config(WHOLE_MODEL))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="has become shorter"):
        weights.read(weights.names[1])


def test_mutated_checkpoints_end_in_our_errors_only(tmp_path: Path) -> None:
    """A few seconds of ``benchmarks/fuzz.py``."""
    fuzzer = CheckpointFuzzer(tmp_path)
    outcomes = [fuzzer.run(Random(f"ci {number}")) for number in range(2000)]
    assert outcomes.count("refused") > 1000
    assert outcomes.count("read") > 100


def test_missing_and_unexpected_arrays_are_all_listed(tmp_path: Path) -> None:
    shapes = {entry["key"]: tuple(entry["shape"]) for entry in manifest(WHOLE_MODEL)["entries"]}
    gone = "params/multimodal_encoder/x_layers_0/self_attention/post/w"
    turned = "params/clip/text/text_projection/kernel"
    shapes.pop(gone)
    shapes |= {"params/decoder/w": (2, 2), turned: (*shapes[turned], 1)}
    path = tmp_path / "a.pkl"
    with path.open("wb") as file:
        file.writelines(pickled_tree(shapes, lambda key, shape: seeded_array(WHOLE_MODEL, key, shape)))
    with pytest.raises(CheckpointError) as caught:
        open_weights(path, config(WHOLE_MODEL))
    message = str(caught.value)
    assert f"missing keys (1):\n  {gone}\n" in message
    assert "unexpected keys (1):\n  params/decoder/w\n" in message
    assert f"wrong shapes (1):\n  {turned} is {shapes[turned]}, expected {shapes[turned][:2]}" in message


def test_another_model_than_config_json_says(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit the model 'magiclens-large'"):
        open_weights(WHOLE_CHECKPOINT, LARGE)
    with pytest.raises(CheckpointError, match=r"is not one of the released models: its .* is \(1, \d+\)"):
        open_weights(WHOLE_CHECKPOINT, None)


def test_numbers_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    shapes = {entry["key"]: tuple(entry["shape"]) for entry in manifest(WHOLE_MODEL)["entries"]}
    path = tmp_path / "a.pkl"
    for dtype in ("float32", "int32"):
        with path.open("wb") as file:
            file.writelines(
                pickled_tree(shapes, lambda key, shape: seeded_array(WHOLE_MODEL, key, shape), dtype=dtype)
            )
        if dtype == "float32":
            open_weights(path, config(WHOLE_MODEL))
    with pytest.raises(CheckpointError, match=rf"wrong dtypes \({len(shapes)}\):"):
        open_weights(path, config(WHOLE_MODEL))
