"""data_root: picture files are read from one folder and nowhere else, however the path is written."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.schema import ImageDocument, ImageNode, MediaResource, MetadataMode, Node, NodeWithScore
from support.drawing import draw_picture, encoded
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
    to_image_nodes,
)
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.schema.nodes import ImageTextNode


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
    "ImageNode": lambda model, path: model(
        to_image_nodes([ImageNode(image_path=path)], data_root=model.data_root)
    ),
    "ImageTextNode": lambda model, path: model([ImageTextNode(image_path=path)]),
    "async ImageTextNode": lambda model, path: asyncio.run(model.acall([ImageTextNode(image_path=path)])),
    "ImageDocument": lambda model, path: model(
        to_image_nodes([ImageDocument(image_path=path)], data_root=model.data_root)
    ),
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


# -- whoever can write into the folder --------------------------------------------------------


def link_to_the_secret(path: Path, secret: Path) -> None:
    path.unlink()
    path.symlink_to(secret)


def folder_linked(path: Path, secret: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))
    secret.with_name(path.name).write_bytes(secret.read_bytes())
    path.parent.symlink_to(secret.parent, target_is_directory=True)


def pipe(path: Path, secret: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path, secret: Path) -> None:
    link_to_the_secret(path, Path("/dev/zero"))


@pytest.mark.parametrize("swap", [link_to_the_secret, folder_linked, pipe, device])
def test_what_is_put_in_place_of_a_checked_file_is_not_read(
    inside: Path,
    secret: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swap: Callable[[Path, Path], None],
) -> None:
    resolve = os.path.realpath

    def resolve_then_swap(path: Any, **options: Any) -> str:
        found = resolve(path, **options)
        if found == str(inside):  # the attacker's turn, right after the check
            monkeypatch.setattr(os.path, "realpath", resolve)
            swap(inside, secret)
        return found

    monkeypatch.setattr(os.path, "realpath", resolve_then_swap)
    with pytest.raises(ImageLoadError):
        load_image(inside, data_root=tmp_path / "root")
    assert os.path.realpath is resolve  # the swap happened


def test_a_pipe_does_not_hang_even_without_a_folder(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.stat

    def look_then_swap(path: Any, **options: Any) -> os.stat_result:
        found = look(path, **options)
        if Path(str(path)) == inside:
            monkeypatch.setattr(os, "stat", look)
            pipe(inside, inside)
        return found

    monkeypatch.setattr(os, "stat", look_then_swap)
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            load_image(inside)
        except ImageLoadError as error:
            outcome.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert len(outcome) == 1
    assert "not a regular file" in str(outcome[0])


def test_links_that_stay_inside_are_read_and_folders_that_cannot_be_listed_too(
    inside: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "linked").symlink_to(inside.parent, target_is_directory=True)
    inside.parent.chmod(0o300)
    try:
        assert load_image(root / "linked" / "inside.png", data_root=root).size == (64, 48)
    finally:
        inside.parent.chmod(0o700)
    with pytest.raises(ImageLoadError, match="not a regular file"):
        load_image(root, data_root=root)
    with pytest.raises(FileNotFoundError):
        load_image(inside / "deeper.png", data_root=root)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("shape", ["slashes", "letters"])
def test_no_string_tells_whether_a_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool, shape: str
) -> None:
    """As base64 it would be another error than as a path, so what it is must not depend on the files."""
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    name = {"slashes": "/" * 80 + "etc/" + ("passwd" if exists else "nobody"), "letters": "A" * 80}[shape]
    if shape == "letters" and exists:
        (tmp_path / name).write_bytes(encoded(draw_picture(2)))
    with pytest.raises(ImageLoadError, match="outside of data_root="):
        load_image(name, data_root=tmp_path / "root")


def test_a_name_that_appears_in_between_is_not_read_instead_of_base64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base64 stays base64, and a name stays a name, whatever file comes or goes."""
    monkeypatch.chdir(tmp_path)
    text = base64.b64encode(encoded(draw_picture(1, (4, 4)))).decode().replace("/", "+")
    assert len(text) < 255  # it could be a file name
    data = base64.b64decode(text)
    for _ in range(2):
        assert ImageAccess(data_root=tmp_path / "root").read(text) == data
        (tmp_path / text).write_bytes(b"another")


# -- ways to a file that do not look like one ------------------------------------------------


@pytest.fixture
def confined(tiny_checkpoint: Path, tmp_path: Path) -> VisualizedBGEEmbedding:
    (tmp_path / "root").mkdir(exist_ok=True)
    return VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", data_root=str(tmp_path / "root")
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that Python opens."""
    names: list[str] = []

    def noting(function: Any) -> Any:
        def call(file: Any, *args: Any, **kwargs: Any) -> Any:
            names.append(Path(str(file)).name)
            return function(file, *args, **kwargs)

        return call

    for module, function in (("builtins", "open"), ("io", "open"), ("os", "open")):
        monkeypatch.setattr(f"{module}.{function}", noting(getattr(__import__(module), function)))
    return names


def test_a_query_never_opens_the_file_it_names(secret: Path, opened: list[str]) -> None:
    query = ImageTextQuery("a", image=str(secret))
    back = ImageTextQuery.from_json(query.to_json())
    assert (back.image, query.to_dict()["image"]) == (str(secret), str(secret))
    assert query.embedding_image == [str(secret)]
    query.image = secret  # a Path
    assert ImageTextQuery.from_json(query.to_json()).image == str(secret)
    assert query.embedding_image == [str(secret)]
    assert secret.name not in opened


def test_image_to_image_retrieval_is_confined(
    confined: VisualizedBGEEmbedding, inside: Path, secret: Path, tmp_path: Path
) -> None:
    index = MultiModalVectorStoreIndex(
        [image_node(inside)], embed_model=confined, image_embed_model=confined, is_image_to_text=False
    )
    retriever = index.as_retriever(similarity_top_k=1, image_similarity_top_k=1)
    for query in (ImageTextQuery("", image=str(secret)), ImageTextQuery("", image_path=str(secret))):
        with pytest.raises(ImageLoadError, match="outside of data_root="):
            retriever.image_to_image_retrieve(query)
    hits = retriever.image_to_image_retrieve(ImageTextQuery("", image=str(inside)))
    assert [hit.node.metadata["file_name"] for hit in hits] == ["inside.png"]
    hits = retriever.image_to_image_retrieve(ImageTextQuery("", image=inside.read_bytes()))
    assert hits[0].score == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["", "a cap"])
def test_an_index_refuses_a_node_without_opening_its_file(
    confined: VisualizedBGEEmbedding, secret: Path, opened: list[str], text: str
) -> None:
    _ = confined.model
    node = ImageTextNode(image_path=str(secret), text=text)
    opened.clear()
    assert node.hash == node.model_copy().hash
    with pytest.raises(ImageLoadError, match="outside of data_root="):
        VectorStoreIndex(nodes=[node], embed_model=confined)
    assert secret.name not in opened


def test_nodes_made_by_hand_are_embedded_as_their_pictures(
    confined: VisualizedBGEEmbedding, inside: Path
) -> None:
    node = ImageTextNode(image_path=str(inside))
    (hit,) = (
        VectorStoreIndex(nodes=[node], embed_model=confined)
        .as_retriever()
        .retrieve(ImageTextQuery(image_path=str(inside)))
    )
    assert hit.score == pytest.approx(1.0)
    contents = {ImageTextNode(image_path=path).get_content(MetadataMode.ALL) for path in ("a.png", "b.png")}
    assert len(contents) == 2
    plain = str.__str__(node.get_content(MetadataMode.EMBED))[:]
    with pytest.raises(ValueError, match="names a picture but does not carry it"):
        confined.get_text_embedding(plain)


@pytest.mark.parametrize("path", ["~/secret.png", "~nobody-of-this-name/secret.png"])
def test_a_home_folder_is_no_way_out(
    confined: VisualizedBGEEmbedding, secret: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("HOME", str(secret.parent))
    node = Node(image_resource=MediaResource(path=path))  # type: ignore[arg-type]
    for refused in (
        lambda: to_image_nodes([node], data_root=confined.data_root),
        lambda: image_node(path, data_root=confined.data_root),
        lambda: load_image(path, data_root=confined.data_root),
    ):
        with pytest.raises(ImageLoadError, match="outside of data_root="):
            refused()
