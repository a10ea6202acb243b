"""One odd value in a node: converted, as documented, or an error that names file and key."""

from __future__ import annotations

import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.schema import ImageNode, MetadataMode, TextNode
from llama_index.core.vector_stores.utils import node_to_metadata_dict

from llama_index_multimodal_rerank import (
    ImageLoadError,
    ImageTextNode,
    image_node,
    load_image_nodes,
    to_image_nodes,
)


class Season(Enum):
    WINTER = 4


class Colour(str, Enum):
    RED = "red"


NOON = datetime(2024, 2, 29, 12, tzinfo=timezone.utc)

CONVERTED = {
    "numpy int": (np.int64(7), 7),
    "numpy float": (np.float32(0.5), 0.5),
    "numpy bool": (np.bool_(True), True),
    "numpy str": (np.str_("red"), "red"),
    "numpy array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "numpy time": (np.datetime64("2024-02-29T12:00:00.123456789"), "2024-02-29T12:00:00.123456"),
    "torch number": (torch.tensor(1.5), 1.5),
    "nested": ({"a": [{"b": np.int64(1)}]}, {"a": [{"b": 1}]}),
    "tuple": ((1, (2,)), [1, [2]]),
    "datetime": (NOON, "2024-02-29T12:00:00+00:00"),
    "date": (date(2024, 2, 29), "2024-02-29"),
    "time": (time(12), "12:00:00"),
    "enum": (Season.WINTER, 4),
    "str enum": (Colour.RED, "red"),
    "path": (Path("a") / "b", "a/b"),
    "uuid": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "64 bits": ([2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
    "unchanged": ({"a": None, "b": [True, "é😀", 1.5]}, {"a": None, "b": [True, "é😀", 1.5]}),
}

ITSELF: dict[str, Any] = {}
ITSELF["itself"] = ITSELF

REFUSED = {
    "nan": (float("nan"), "is nan, which is no JSON"),
    "inf": (float("-inf"), "is -inf"),
    "numpy nan": (np.float32("nan"), "is nan"),
    "numpy nat": (np.datetime64("NaT"), "is NaT"),
    "numpy span": (np.timedelta64(1, "s"), "a span of time"),
    "span": (timedelta(1), "of type timedelta"),
    "bytes": (b"\xff", r"is b'\xff', of type bytes"),
    "set": ({1}, "of type set"),
    "decimal": (Decimal("1.10"), "of type Decimal"),
    "complex": (1j, "of type complex"),
    "object": (object(), "of type object"),
    "65 bits": (2**63, "beyond 64 bits"),
    "thousands of digits": (10**5000, "beyond 64 bits"),
    "surrogate": ("red\ud800", r"is 'red\ud800', which is not valid Unicode: character 3"),
    "file name": ("\udce9.png", "not valid Unicode: character 0"),
    "key": ({1: 2}, "the key is 1, of type int"),
    "surrogate key": ({"\udc80": 2}, "not valid Unicode"),
    "itself": (ITSELF, "nested deeper than 50 levels"),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_converted(case: str, pictures: list[Path]) -> None:
    value, expected = CONVERTED[case]
    node = image_node(pictures[0], metadata={"k": value})
    assert node.metadata["k"] == expected
    assert node_to_metadata_dict(node)["k"] == expected
    (loaded,) = load_image_nodes(pictures[:1], metadata={"k": value})
    assert loaded.metadata["k"] == expected


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_file_and_key(case: str, pictures: list[Path]) -> None:
    value, part = REFUSED[case]
    for make in (
        lambda: image_node(pictures[0], metadata={"size": {"width": value}}),
        lambda: load_image_nodes(pictures, metadata={"size": {"width": value}}),
    ):
        with pytest.raises(ValueError, match=r"picture-0\.png'?: metadata\['size'\]") as caught:
            make()
        assert part in str(caught.value)
        assert str(caught.value).isprintable()


def test_pandas_values(pictures: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    node = image_node(pictures[0], metadata={"k": pandas.Timestamp("2024-02-29"), "s": pandas.Series([1, 2])})
    assert (node.metadata["k"], node.metadata["s"]) == ("2024-02-29T00:00:00", [1, 2])
    for missing in (pandas.NaT, pandas.NA):
        with pytest.raises(ValueError, match=r"picture-0\.png'?: metadata\['k'\] is (NaT|<NA>)"):
            image_node(pictures[0], metadata={"k": missing})


def test_keys_texts_and_ids(pictures: list[Path]) -> None:
    for arguments, part in (
        ({"metadata": {"a\ud800": 1}}, r"metadata: the key is 'a\ud800'"),
        ({"metadata": {7: 1}}, "metadata: the key is 7, of type int"),
        ({"text": "a \ud83d mug"}, r"text is 'a \ud83d mug'"),
        ({"text": float("nan")}, "text is nan, of type float"),
        ({"id_": "\udfff"}, r"id_ is '\udfff'"),
    ):
        with pytest.raises(ValueError, match=r"picture-0\.png") as caught:
            image_node(pictures[0], **arguments)  # type: ignore[arg-type]
        assert part in str(caught.value)


def test_a_name_that_is_not_utf_8(tmp_path: Path, pictures: list[Path]) -> None:
    raw = tmp_path / "caf\udce9.png"
    raw.write_bytes(pictures[0].read_bytes())
    with pytest.raises(ImageLoadError, match=r"caf\\udce9\.png.*its name is not UTF-8"):
        image_node(raw)
    with pytest.raises(ImageLoadError, match="its name is not UTF-8"):
        to_image_nodes([ImageNode(image_path=str(raw))])
    with pytest.raises(ValueError, match=r"image is 'https://a\.example/\\ud800'"):
        image_node("https://a.example/\ud800")


def test_a_folder_goes_on_without_the_odd_ones(
    pictures: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    prices = [1.5, float("nan"), np.float64(2), None, Decimal(3), 4]
    nodes = load_image_nodes(
        pictures,
        metadata=lambda path: {"price": prices[int(path.stem[-1])]},
        text=lambda path: "\ud800" if path.stem[-1] == "5" else "a mug",
        on_error="skip",
    )
    assert [node.metadata["price"] for node in nodes] == [1.5, 2.0, None]
    assert [(Path(path).name, reason.partition(",")[0]) for path, reason in nodes.skipped] == [
        ("picture-1.png", "metadata['price'] is nan"),
        ("picture-4.png", "metadata['price'] is Decimal('3')"),
        ("picture-5.png", r"text is '\ud800'"),
    ]
    assert "picture-4.png" in caplog.text


def test_to_image_nodes_names_the_node() -> None:
    with pytest.raises(ValueError, match=r"TextNode 'n': metadata\['price'\] is nan"):
        to_image_nodes([TextNode(id_="n", text="a mug", metadata={"price": float("nan")})])
    with pytest.raises(ValueError, match=r"TextNode 'n': text is 'a \\ud800'"):
        to_image_nodes([TextNode(id_="n", text="a \ud800")])


def test_a_node_that_was_changed_after_it_was_made(pictures: list[Path]) -> None:
    node = image_node(pictures[0])
    node.metadata["price"] = np.float32(0.5)
    assert node.get_content(MetadataMode.EMBED)
    assert node.model_copy().metadata["price"] == 0.5
    assert type(node.model_copy().metadata["price"]) is float
    node.metadata["price"] = b"1"
    with pytest.raises(ValueError, match=r"ImageTextNode .*picture-0\.png'\): metadata\['price'\] is b'1'"):
        node.get_content(MetadataMode.EMBED)
    made_by_hand = ImageTextNode(image_path="caf\udce9.png")
    with pytest.raises(ValueError, match="image_path is 'caf"):
        made_by_hand.get_content(MetadataMode.EMBED)
