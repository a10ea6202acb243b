from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import phi3_vision_golden as golden
from support.drawing import draw

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionImageProcessor

RECORDED = golden.read_json("processor_cases.json")["images"]
ALL_CROPS = [(name, int(crops)) for name, entry in RECORDED.items() for crops in entry["by_num_crops"]]


@pytest.mark.parametrize(("name", "num_crops"), ALL_CROPS)
def test_pixels_equal_the_reference(name: str, num_crops: int) -> None:
    expected = RECORDED[name]["by_num_crops"][str(num_crops)]
    arrays = {
        key.split("/", 2)[2]: values
        for key, values in golden.read_arrays("golden_processor.npz").items()
        if key.startswith(f"{name}/nc{num_crops}/")
    }
    out = Phi3VisionImageProcessor(num_crops=num_crops)(golden.picture(name))
    crops = out["pixel_values"][0]  # (views, 3, 336, 336)
    used = 1 + expected["crops_used"]

    assert list(out["pixel_values"].shape) == expected["pixel_values_shape"]
    assert out["pixel_values"].dtype == torch.float32
    assert out["image_sizes"].tolist() == [expected["image_sizes_hw"]]
    assert out["num_img_tokens"].tolist() == [expected["num_img_tokens"]]
    assert not crops[used:].any()
    assert golden.worst(crops.double().mean(dim=(2, 3)), arrays["crop_mean"]) <= 1e-6
    assert golden.worst(crops.double().std(dim=(2, 3), unbiased=False), arrays["crop_std"]) <= 1e-6
    last = crops[used - 1]
    edges = torch.stack([last[:, 0], last[:, -1], last[:, :, 0], last[:, :, -1]])
    for found, key in [
        (crops[:, :, 8::40, 8::40], "grid"),
        (crops[0, :, :6, :6], "global_corner"),
        (crops[1, :, 165:171, 165:171], "first_crop_centre"),
        (crops[0, 0, 168], "global_row168_red"),
        (edges, "last_crop_edges"),
    ]:
        assert golden.worst(found, arrays[key]) <= 1e-6, key


@pytest.mark.parametrize(("name", "num_crops"), ALL_CROPS)
def test_tiles_are_bit_identical(name: str, num_crops: int) -> None:
    """Bicubic interpolation rounds differently on other processors; all else is the same everywhere."""
    arrays = golden.read_arrays("golden_processor.npz")
    prefix = f"{name}/nc{num_crops}"
    expected = RECORDED[name]["by_num_crops"][str(num_crops)]
    pixels = Phi3VisionImageProcessor(num_crops=num_crops)(golden.picture(name))["pixel_values"].numpy()
    tiles = pixels[0, 1:]
    last = tiles[expected["crops_used"] - 1]
    edges = np.stack([last[:, 0], last[:, -1], last[:, :, 0], last[:, :, -1]])
    np.testing.assert_array_equal(tiles[:, :, 8::40, 8::40], arrays[f"{prefix}/grid"][1:])
    np.testing.assert_array_equal(tiles[0, :, 165:171, 165:171], arrays[f"{prefix}/first_crop_centre"])
    np.testing.assert_array_equal(edges, arrays[f"{prefix}/last_crop_edges"])
    if expected["image_sizes_hw"] == [336, 336]:  # the global view has the tile's size
        assert hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest() == expected["pixel_values_sha256"]


def test_a_batch_of_different_sizes_equals_one_by_one() -> None:
    processor = Phi3VisionImageProcessor(num_crops=4)
    names = ["wide", "transparent", "tall", "gray", "palette"]
    together = processor([draw(name) for name in names])
    assert together["pixel_values"].shape == (5, 5, 3, 336, 336)
    for row, name in enumerate(names):
        alone = processor(draw(name))
        assert torch.equal(together["pixel_values"][row], alone["pixel_values"][0])
        assert torch.equal(together["image_sizes"][row], alone["image_sizes"][0])


def test_white_padding_goes_to_both_sides() -> None:
    # At 2.9:1 three columns would need two rows, six tiles; with four allowed it is two columns, one row.
    padded = Phi3VisionImageProcessor().hd_transform(Image.new("RGB", (290, 100), "black"), 4)
    assert padded.size == (672, 336)
    values = np.asarray(padded)
    rows_black = np.flatnonzero((values == 0).all(axis=(1, 2)))
    height = int(672 / (290 / 100))  # 231
    assert len(rows_black) == height
    assert rows_black[0] == (336 - height) // 2
    assert (values[: rows_black[0]] == 255).all()
    assert (values[rows_black[-1] + 1 :] == 255).all()


@pytest.mark.parametrize(
    "images", [np.zeros((8, 8, 3), np.uint8), 3, b"abc", [Image.new("RGB", (9, 9)), None]]
)
def test_other_inputs_are_refused(images: object) -> None:
    with pytest.raises(TypeError, match=r"PIL\.Image\.Image.*got (ndarray|int|bytes|NoneType)"):
        Phi3VisionImageProcessor()(images)


def test_a_path_is_opened_and_other_strings_are_refused(tmp_path: Path) -> None:
    processor = Phi3VisionImageProcessor(num_crops=1)
    path = tmp_path / "square.png"
    draw("square").save(path)
    assert torch.equal(processor(str(path))["pixel_values"], processor(draw("square"))["pixel_values"])
    with pytest.raises(ValueError, match="no_such_picture"):
        processor("no_such_picture.png")


def test_no_picture_and_zero_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="images is empty"):
        Phi3VisionImageProcessor()([])
    with pytest.raises(ValueError, match="num_crops is 0"):
        Phi3VisionImageProcessor(num_crops=0)
    with pytest.raises(ValueError, match="num_crops is 0"):
        Phi3VisionImageProcessor()(draw("square"), num_crops=0)
    with pytest.raises(ValueError, match=r"2000x1 pixels"):
        Phi3VisionImageProcessor(num_crops=4)([draw("square"), Image.new("RGB", (2000, 1))])


def test_numpy_output_and_unknown_tensor_types() -> None:
    processor = Phi3VisionImageProcessor(num_crops=1)
    image = draw("one tile")
    out = processor(image, return_tensors="np")
    assert isinstance(out["pixel_values"], np.ndarray)
    assert np.array_equal(out["pixel_values"], processor(image)["pixel_values"].numpy())
    with pytest.raises(ValueError, match="return_tensors is 'tf'"):
        processor(image, return_tensors="tf")


def test_the_callers_picture_is_left_alone() -> None:
    image = draw("transparent")
    before = image.copy()
    Phi3VisionImageProcessor(num_crops=4)(image)
    assert (image.mode, image.size, image.tobytes()) == (before.mode, before.size, before.tobytes())


def test_reads_the_published_file_and_round_trips(tmp_path: Path) -> None:
    published = {
        "auto_map": {"AutoImageProcessor": "image_processing_phi3_v.Phi3VImageProcessor"},
        "num_crops": 16,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Phi3VImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "Phi3VProcessor",
        "num_img_tokens": 144,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published), encoding="utf-8")
    processor = Phi3VisionImageProcessor.from_pretrained(tmp_path)
    assert (processor.num_crops, processor.image_mean) == (16, published["image_mean"])
    assert "auto_map" not in processor.to_dict()
    assert Phi3VisionImageProcessor.from_pretrained(tmp_path, num_crops=4).num_crops == 4

    saved = Phi3VisionImageProcessor(num_crops=7)
    saved.save_pretrained(tmp_path / "saved")
    assert Phi3VisionImageProcessor.from_pretrained(tmp_path / "saved").to_dict() == saved.to_dict()
    assert pickle.loads(pickle.dumps(saved)).to_dict() == saved.to_dict()
