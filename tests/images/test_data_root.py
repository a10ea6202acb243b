"""data_root: picture files are read from one folder and nowhere else, however the path is written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import ImageDocument, ImageNode, NodeWithScore
from support.drawing import draw_picture
from support.vlm_doubles import Scripted

from llama_index_multimodal_rerank import (
    ImageLoadError,
    ImageText,
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    image_node,
    load_image,
    load_image_nodes,
)
from llama_index_multimodal_rerank.images.access import ImageAccess


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "sub"
    folder.mkdir(parents=True)
    draw_picture(1).save(folder / "inside.png")
    return folder / "inside.png"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "rooted").mkdir()  # begins with the name of the root
    path = tmp_path / "rooted" / "secret.png"
    draw_picture(2).save(path)
    return path


def ways_out(root: Path, secret: Path) -> dict[str, str]:
    (root / "link.png").symlink_to(secret)
    (root / "folder").symlink_to(secret.parent, target_is_directory=True)
    (root / "chain.png").symlink_to(root / "link.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    relative = os.path.relpath(secret, root)
    return {
        "absolute": str(secret),
        "dots": f"{root}/{relative}",
        "dots through a folder": f"{root}/sub/../../rooted/secret.png",
        "relative to the current folder": os.path.relpath(secret),
        "file URL": secret.as_uri(),
        "file URL with dots": f"file://{root}/../rooted/secret.png",
        "file URL with escaped dots": f"file://{root}/%2e%2e/rooted/secret.png",
        "link": str(root / "link.png"),
        "link to a link": str(root / "chain.png"),
        "linked folder": str(root / "folder" / "secret.png"),
        "loop": str(root / "loop.png"),
        "NUL": f"{root}/inside.png\0{secret}",
        "device": "/dev/zero",
        "nothing there": str(secret.parent / "nothing.png"),
    }


def test_files_inside_are_read(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "link.png").symlink_to(inside)
    monkeypatch.chdir(root)
    for source in (inside, str(inside), inside.as_uri(), "sub/inside.png", "sub/../link.png"):
        assert load_image(source, data_root=root).size == (64, 48)
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert load_image(inside, data_root=tmp_path / "alias").size == (64, 48)
    # what is no file is not the business of data_root
    assert load_image(inside.read_bytes(), data_root="/nowhere").size == (64, 48)
    assert load_image(draw_picture(1), data_root="/nowhere").size == (64, 48)


def test_no_way_leads_out(inside: Path, secret: Path, tmp_path: Path) -> None:
    for name, path in ways_out(tmp_path / "root", secret).items():
        with pytest.raises(ImageLoadError) as raised:
            load_image(path, data_root=tmp_path / "root")
        expected = {"loop": "", "NUL": "null"}.get(name, "it is outside of data_root=")
        assert expected in raised.value.reason, name


def test_no_node_is_made_of_a_file_outside(inside: Path, secret: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert image_node(inside, data_root=root).image_path == str(inside)
    for path in ways_out(root, secret).values():
        with pytest.raises(ImageLoadError):
            image_node(path, data_root=root)
        with pytest.raises(ImageLoadError):
            ImageText("a", path).with_digest(ImageAccess(data_root=root))


def test_a_folder_is_searched_but_links_out_of_it_are_not_followed(
    inside: Path, secret: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "out.png").symlink_to(secret)
    (root / "in.png").symlink_to(inside)
    nodes = load_image_nodes(root, data_root=root, on_error="skip")
    assert [node.metadata["file_name"] for node in nodes] == ["in.png", "inside.png"]
    ((path, reason),) = nodes.skipped
    assert path == str(root / "out.png")
    assert "outside of data_root=" in reason


Way = Callable[[VisualizedBGEEmbedding, str], Any]
WAYS: dict[str, Way] = {
    "query": lambda model, path: model.get_query_embedding(ImageText("a", path)),
    "async query": lambda model, path: asyncio.run(model.aget_query_embedding(ImageText("a", path))),
    "query bundle": lambda model, path: model.get_agg_embedding_from_queries(
        ImageTextQuery("a", image_path=path).embedding_strs
    ),
    "text": lambda model, path: model.get_text_embedding(ImageText("", path)),
    "batch": lambda model, path: model.get_text_embedding_batch([ImageText("", path)] * 40),
    "image": lambda model, path: model.get_image_embedding(path),
    "encode": lambda model, path: model.encode([ImageText("", path)]),
    "ImageNode": lambda model, path: model([ImageNode(image_path=path)]),
    "async ImageNode": lambda model, path: asyncio.run(model.acall([ImageNode(image_path=path)])),
    "ImageDocument": lambda model, path: model([ImageDocument(image_path=path)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_embedding_is_confined(
    tiny_checkpoint: Path, inside: Path, secret: Path, tmp_path: Path, way: str
) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", data_root=str(tmp_path / "root")
    )
    missing = secret.parent / "nothing.png"  # nor is it told whether a file exists
    for path in [str(secret)] if way == "ImageDocument" else [str(secret), str(missing)]:
        with pytest.raises(ImageLoadError, match="outside of data_root="):
            WAYS[way](model, path)
    assert WAYS[way](model, str(inside)) is not None


def test_the_embedding_and_the_store_agree_with_and_without(
    embed_model: VisualizedBGEEmbedding, tiny_checkpoint: Path, inside: Path
) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", data_root=str(inside.parent)
    )
    assert model.get_image_embedding(inside) == embed_model.get_image_embedding(inside)
    assert model.fingerprint == embed_model.fingerprint


def test_the_reranker_looks_at_no_file_outside(inside: Path, secret: Path, tmp_path: Path) -> None:
    nodes = [NodeWithScore(node=image_node(path), score=0.5) for path in (secret, inside)]
    model = Scripted("Ranking: [1] > [2]")
    rerank = Phi3VisionRerank(model=model, top_n=2, data_root=str(tmp_path / "root"))
    ranked = rerank.postprocess_nodes(nodes, query_bundle=ImageTextQuery("a mug"))
    problems = {
        hit.node.metadata["file_name"]: hit.node.metadata.get("rerank_unreadable", "") for hit in ranked
    }
    assert problems["inside.png"] == ""
    assert "outside of data_root=" in problems["secret.png"]
    with pytest.raises(ImageLoadError, match="outside of data_root="):
        rerank.postprocess_nodes(nodes, query_bundle=ImageTextQuery("", image_path=str(secret)))
