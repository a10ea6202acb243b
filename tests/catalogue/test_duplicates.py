"""The same picture again, and the query's own: by bytes and by what they show."""

from __future__ import annotations

import asyncio
import doctest
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from PIL import Image
from support.drawing import draw_picture, encoded

from llama_index_multimodal_rerank import (
    CollapseDuplicates,
    ExcludeQueryImage,
    ImageLoadError,
    ImageTextQuery,
    image_node,
)
from llama_index_multimodal_rerank.catalogue import duplicates, query_image
from llama_index_multimodal_rerank.catalogue.looking import TOLERANCE
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.demo.drawing.looks import KINDS, SURFACES, Look
from llama_index_multimodal_rerank.images.likeness import make_thumbnail

PHOTOGRAPHS = Path(__file__).parent.parent / "golden" / "phi3_vision" / "images"


def hits(*sources: object) -> list[NodeWithScore]:
    nodes = [image_node(source, id_=str(number)) for number, source in enumerate(sources)]  # type: ignore[arg-type]
    return [NodeWithScore(node=node, score=1 - number / 10) for number, node in enumerate(nodes)]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in found]


def reencoded(image: Image.Image, quality: int = 60, scale: float = 0.8) -> bytes:
    size = (round(image.width * scale), round(image.height * scale))
    return encoded(image.convert("RGB").resize(size), "JPEG", quality=quality)


def product(kind: str, surface: str, colour: str, seed: int = 1) -> Image.Image:
    return draw_query_picture(Look(kind, surface, colour), seed=seed)


@pytest.mark.parametrize(("module", "examples"), [(duplicates, 8), (query_image, 6)])
def test_the_examples(module: object, examples: int) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.failed == 0
    assert found.attempted >= examples


def test_the_query_s_own_picture_and_its_copy_are_left_out(tmp_path: Path) -> None:
    mug = product("mug", "leopard", "red")
    (tmp_path / "own.png").write_bytes(encoded(mug))
    (tmp_path / "copy.jpg").write_bytes(reencoded(mug))
    (tmp_path / "same colours.png").write_bytes(encoded(product("umbrella", "leopard", "red")))
    (tmp_path / "another colour.png").write_bytes(encoded(product("mug", "leopard", "blue")))
    (tmp_path / "another photograph.png").write_bytes(encoded(product("mug", "leopard", "red", seed=2)))
    found = hits(*sorted(tmp_path.iterdir()))
    names = [Path(hit.node.image_path).stem for hit in found]  # type: ignore[attr-defined]
    query = ImageTextQuery("the same in blue", image_path=tmp_path / "own.png")
    rest = ExcludeQueryImage().postprocess_nodes(found, query_bundle=query)
    assert [names[int(id_)] for id_ in ids(rest)] == [
        "another colour",
        "another photograph",
        "same colours",
    ]
    assert rest[0].node.metadata["query_image_left_out"] == [
        str(names.index("copy")),
        str(names.index("own")),
    ]
    assert rest[0].node.excluded_llm_metadata_keys[-1] == "query_image_left_out"
    assert all("query_image_left_out" not in hit.node.metadata for hit in [*found, *rest[1:]])
    assert ids(asyncio.run(ExcludeQueryImage().apostprocess_nodes(found, query_bundle=query))) == ids(rest)

    by_digest = ExcludeQueryImage(near_duplicates=False).postprocess_nodes(found, query_bundle=query)
    assert [names[int(id_)] for id_ in {*map(str, range(5))} - {*ids(by_digest)}] == ["own"]


def test_pictures_from_memory_and_no_picture() -> None:
    mug, other = product("mug", "dots", "red"), product("mug", "zebra", "red")
    found = hits(reencoded(mug), encoded(other))
    for query in (ImageTextQuery("red", image=mug), QueryBundle("red", custom_embedding_strs=["red"])):
        expected = ["1"] if isinstance(query, ImageTextQuery) else ["0", "1"]
        assert ids(ExcludeQueryImage().postprocess_nodes(found, query_bundle=query)) == expected
    with pytest.raises(ValueError, match="needs the query"):
        ExcludeQueryImage().postprocess_nodes(found)


def test_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    mug = product("mug", "dots", "red")
    query = ImageTextQuery("red", image=mug)
    assert ExcludeQueryImage().postprocess_nodes(hits(mug), query_bundle=query) == []
    assert "All 1 hits are the query's own picture" in caplog.text


def test_files_outside_are_not_read(tmp_path: Path, pictures: list[Path]) -> None:
    inside, outside = tmp_path / "inside", pictures[0]
    inside.mkdir()
    query = ImageTextQuery("red", image_path=outside)
    with pytest.raises(ImageLoadError, match="data_root"):
        ExcludeQueryImage(data_root=str(inside)).postprocess_nodes(hits(outside), query_bundle=query)


def test_what_cannot_be_read_stays(pictures: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    found = hits(*pictures[:3])
    pictures[1].unlink()
    found.append(NodeWithScore(node=TextNode(id_="text", text="words"), score=0.1))
    found.append(NodeWithScore(node=ImageNode(id_="url", image_url="http://images.example/1.jpg"), score=0.1))
    assert ids(CollapseDuplicates().postprocess_nodes(found)) == ["0", "1", "2", "text", "url"]
    assert "The picture of 1 cannot be compared: no such file" in caplog.text
    assert "The picture of url cannot be compared: URLs are not fetched" in caplog.text


def test_identical_by_digest_without_a_look(pictures: list[Path]) -> None:
    pictures[1].write_bytes(pictures[0].read_bytes())
    found = hits(*pictures[:3])
    for path in pictures:
        path.unlink()
    kept = CollapseDuplicates(near_duplicates=False).postprocess_nodes(found)
    assert [(hit.node.node_id, hit.score, hit.node.metadata.get("duplicates")) for hit in kept] == [
        ("0", 1.0, ["1"]),
        ("2", 0.8, None),
    ]
    assert "duplicates" not in found[0].node.metadata


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 60, 80 %": reencoded,
    "quality 75, 150 %": lambda image: reencoded(image, 75, 1.5),
    "PNG": lambda image: encoded(image),
    "WebP": lambda image: encoded(image.convert("RGB"), "WEBP", quality=50),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize(
    "name", ["large_1344x1344.png", "square_500.png", "rgba_300x180.png", "gray_257x311.png"]
)
def test_copies_are_found(name: str, copy: str) -> None:
    image = Image.open(PHOTOGRAPHS / name)
    if image.mode == "RGBA":  # whoever makes a JPEG of it puts it on white
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    found = hits(PHOTOGRAPHS / name, COPIES[copy](image), encoded(draw_picture(3, image.size)))
    kept = CollapseDuplicates().postprocess_nodes(found)
    assert ids(kept) == ["0", "2"]
    assert kept[0].node.metadata["duplicates"] == ["1"]


def test_a_turned_photograph_and_its_upright_copy() -> None:
    image = draw_picture(5, (320, 240))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", quality=90, exif=exif)
    assert ids(CollapseDuplicates().postprocess_nodes(hits(turned.getvalue(), encoded(image)))) == ["0"]


def test_no_two_products_are_one_picture() -> None:
    """Every kind with every surface in one colour, drawn alike: none is taken for another, every copy is."""
    drawn = [product(kind, surface, "red") for kind in KINDS for surface in SURFACES]
    cells = np.stack([make_thumbnail(image).cells for image in drawn])
    nearest = min(
        int(np.abs(cells[number + 1 :] - cells[number]).max(axis=(1, 2, 3)).min())
        for number in range(len(drawn) - 1)
    )
    assert nearest > 2 * TOLERANCE
    copies = [make_thumbnail(Image.open(BytesIO(reencoded(image)))) for image in drawn[::5]]
    assert all(
        make_thumbnail(image).is_like(copy, TOLERANCE) for image, copy in zip(drawn[::5], copies, strict=True)
    )


def test_the_tolerance() -> None:
    grey, lighter = (Image.new("RGB", (64, 64), (value, 100, 100)) for value in (100, 110))
    found = hits(encoded(grey), encoded(lighter))
    # The cells differ by 10 in red, on average over the three colours by 10 / 3.
    assert ids(CollapseDuplicates(tolerance=20).postprocess_nodes(found)) == ["0"]
    assert ids(CollapseDuplicates(tolerance=19).postprocess_nodes(found)) == ["0", "1"]
    wide = encoded(Image.new("RGB", (80, 64), (100, 100, 100)))
    assert ids(CollapseDuplicates().postprocess_nodes(hits(encoded(grey), wide))) == ["0", "1"]
    with pytest.raises(ValueError, match="tolerance"):
        CollapseDuplicates(tolerance=256)
