"""nodes.py: nodes that embed as pictures, and the loader."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.storage.docstore.utils import doc_to_json, json_to_doc
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from support.drawing import draw_picture

from llama_index_multimodal_rerank.images.access import DEFAULT_ACCESS
from llama_index_multimodal_rerank.images.sources import ImageLoadError
from llama_index_multimodal_rerank.schema.contents import embedding_content
from llama_index_multimodal_rerank.schema.conversion import to_image_nodes, to_storable_node
from llama_index_multimodal_rerank.schema.image_node import image_node
from llama_index_multimodal_rerank.schema.image_text import ImageText
from llama_index_multimodal_rerank.schema.nodes import ImageTextNode, node_image


def digest_of(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


# -- content ---------------------------------------------------------------------------------


def test_embed_content_carries_the_picture_and_no_metadata(pictures: list[Path]) -> None:
    node = image_node(pictures[0], text="a cap", metadata={"brand": "Acme"})
    content = node.get_content(MetadataMode.EMBED)
    assert isinstance(content, ImageText)
    assert content.text == "a cap"
    assert content.image == str(pictures[0])
    assert content == f"a cap\n[image_digest: {digest_of(pictures[0])}]"
    assert node.get_content() == node.text == "a cap"


def test_content_for_caches_tells_textless_pictures_apart(pictures: list[Path]) -> None:
    contents = {image_node(path).get_content(MetadataMode.ALL) for path in pictures}
    assert len(contents) == len(pictures)
    assert "" not in contents


def test_digest_tells_them_apart_even_with_all_metadata_removed(pictures: list[Path]) -> None:
    nodes = [image_node(path) for path in pictures]
    for node in nodes:
        node.metadata = {}
    assert len({node.get_content(MetadataMode.ALL) for node in nodes}) == len(nodes)


def test_the_language_model_sees_text_and_user_metadata_only(pictures: list[Path]) -> None:
    node = image_node(pictures[0], text="a cap", metadata={"brand": "Acme"})
    assert node.get_content(MetadataMode.LLM) == "brand: Acme\n\na cap"


def test_metadata_states_the_facts(pictures: list[Path]) -> None:
    node = image_node(pictures[0])
    assert node.metadata == {
        "file_path": str(pictures[0]),
        "file_name": "picture-0.png",
        "file_type": "image/png",
        "file_size": pictures[0].stat().st_size,
        "image_width": 64,
        "image_height": 48,
        "image_digest": digest_of(pictures[0]),
    }


def test_user_metadata_cannot_fake_the_digest(pictures: list[Path]) -> None:
    node = image_node(pictures[0], metadata={"image_digest": "sha256:0", "file_name": "mine"})
    assert node.metadata["image_digest"] == digest_of(pictures[0])
    assert node.metadata["file_name"] == "mine"


# -- identity --------------------------------------------------------------------------------


def test_id_follows_the_path_and_hash_the_bytes(pictures: list[Path]) -> None:
    first, again = image_node(pictures[0]), image_node(pictures[0])
    assert first.node_id == again.node_id == first.ref_doc_id
    assert first.hash == again.hash
    pictures[0].write_bytes(pictures[1].read_bytes())
    changed = image_node(pictures[0])
    assert changed.node_id == first.node_id
    assert changed.hash != first.hash
    assert image_node(pictures[1]).node_id != first.node_id


def test_relative_and_absolute_paths_are_one_picture(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures[0].parent)
    assert image_node(pictures[0].name).node_id == image_node(pictures[0]).node_id


def test_hash_covers_the_text(pictures: list[Path]) -> None:
    assert image_node(pictures[0], text="a").hash != image_node(pictures[0], text="b").hash


# -- what stores make of it ------------------------------------------------------------------


def test_milvus_row_reads_back_as_image_node_and_is_small(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    draw_picture(0, (1500, 1200)).save(path, compress_level=0)
    assert path.stat().st_size > 5_000_000
    row = node_to_metadata_dict(image_node(path, text="cap", metadata={"k": 1}), remove_text=True)
    assert len(json.dumps(row).encode()) < 4096  # a server refuses fields over 65,536 bytes
    back = metadata_dict_to_node(row, text="cap")
    assert type(back) is ImageNode
    assert (back.image_path, back.text, back.metadata["k"]) == (str(path), "cap", 1)


def test_docstore_and_pipeline_cache_read_back_as_image_node(pictures: list[Path]) -> None:
    back = json_to_doc(json.loads(json.dumps(doc_to_json(image_node(pictures[0], text="cap")))))
    assert type(back) is ImageNode
    assert (back.image_path, back.text, back.ref_doc_id) == (str(pictures[0]), "cap", back.node_id)


def test_the_copy_an_index_makes_is_the_same_node_but_no_image_node(pictures: list[Path]) -> None:
    node = image_node(pictures[0], text="cap", metadata={"k": 1})
    copied = node.model_copy()
    copied.embedding = [1.0]
    assert not isinstance(copied, ImageNode)
    assert node.embedding is None
    expected = node.model_dump()
    assert copied.model_dump() == {**expected, "embedding": [1.0]}
    assert copied.class_name() == "ImageNode"
    assert copied.get_type() == node.get_type()
    assert copied.hash == node.hash
    embedded = copied.get_content(MetadataMode.EMBED)
    assert isinstance(embedded, ImageText)
    assert embedded.image == str(pictures[0])
    assert node.model_copy(update={"text": "hat"}).text == "hat"
    node.model_copy(deep=True).metadata["k"] = 2
    assert node.metadata["k"] == 1


# -- pictures without a file -----------------------------------------------------------------


def test_bytes_pil_and_base64_are_kept_in_the_node(pictures: list[Path]) -> None:
    data = pictures[0].read_bytes()
    for source in (
        data,
        base64.b64encode(data).decode(),
        f"data:image/png;base64,{base64.b64encode(data).decode()}",
    ):
        node = image_node(source)
        assert node.image is not None
        assert base64.b64decode(node.image) == data
        assert node.image_mimetype == "image/png"
        assert image_node(source).node_id == node.node_id
    drawn = image_node(draw_picture(0))
    content = drawn.get_content(MetadataMode.EMBED)
    assert isinstance(content, ImageText)
    assert drawn.node_id != image_node(draw_picture(1)).node_id


def test_url_is_kept_as_url() -> None:
    node = image_node("https://example.com/leopard.jpg")
    assert node.image_url == "https://example.com/leopard.jpg"
    assert node.image is None
    assert node.image_path is None


# -- other people's nodes --------------------------------------------------------------------


def test_nodes_that_stores_keep_pass_through(pictures: list[Path]) -> None:
    for node in (
        image_node(pictures[0]),
        ImageNode(image_path=str(pictures[0])),
        TextNode(text="a"),
        Document(text="a"),
    ):
        assert to_storable_node(node) is node


def test_image_document_and_node_become_image_nodes(pictures: list[Path]) -> None:
    resource = MediaResource(path=pictures[0])
    for node in (
        ImageDocument(image_path=str(pictures[0]), text="cap", metadata={"k": 1}),
        Node(image_resource=resource, text_resource=MediaResource(text="cap"), metadata={"k": 1}),
    ):
        kept = to_storable_node(node)
        assert isinstance(kept, ImageTextNode)
        assert (kept.node_id, kept.text, kept.image_path) == (node.node_id, "cap", str(pictures[0]))
        assert kept.metadata["k"] == 1
        assert kept.relationships[NodeRelationship.SOURCE].node_id == node.node_id  # type: ignore[union-attr]


def test_picture_bytes_in_a_node_survive(pictures: list[Path]) -> None:
    kept = to_storable_node(Node(image_resource=MediaResource(data=pictures[0].read_bytes())))
    assert isinstance(kept, ImageTextNode)
    assert kept.image is not None
    assert base64.b64decode(kept.image) == pictures[0].read_bytes()


def test_url_safe_base64_in_other_peoples_nodes(pictures: list[Path]) -> None:
    text = base64.urlsafe_b64encode(pictures[0].read_bytes()).decode()
    assert "-" in text
    for node in (
        ImageNode(image=text),
        ImageNode(image=f"DATA:image/png;base64,{text}"),
        Node(image_resource=MediaResource(data=pictures[0].read_bytes())),
    ):
        source = node_image(node)
        assert source is not None
        assert DEFAULT_ACCESS.read(source) == pictures[0].read_bytes()


def test_node_of_text_becomes_a_text_node() -> None:
    node = Node(text_resource=MediaResource(text="words"), metadata={"k": 1})
    kept = to_storable_node(node)
    assert type(kept) is TextNode
    assert (kept.text, kept.metadata, kept.node_id) == ("words", {"k": 1}, node.node_id)


def test_audio_is_refused() -> None:
    with pytest.raises(ValueError, match="audio or video"):
        to_storable_node(Node(audio_resource=MediaResource(path="a.mp3")))


def test_image_node_that_lost_its_picture_is_refused(pictures: list[Path]) -> None:
    lost = ImageNode(image_resource=MediaResource(data=pictures[0].read_bytes()), text="cap")
    assert node_image(lost) is None
    with pytest.raises(ValueError, match=r"has no picture.*image_node\(data\)"):
        embedding_content(lost)


def test_empty_node_is_refused() -> None:
    with pytest.raises(ValueError, match="neither text nor picture"):
        embedding_content(TextNode(text=" \n"))


def test_to_image_nodes_keeps_what_it_need_not_change(pictures: list[Path]) -> None:
    ours, words = image_node(pictures[0]), TextNode(text="a")
    assert to_image_nodes([ours, words]) == [ours, words]
    parent = RelatedNodeInfo(node_id="p")
    stored = ImageNode(
        id_="n",
        image_path=str(pictures[1]),
        text="cap",
        metadata={"k": 1, "image_digest": digest_of(pictures[0])},
        relationships={NodeRelationship.PARENT: parent},
    )
    (made,) = to_image_nodes([stored])
    assert isinstance(made, ImageTextNode)
    assert (made.node_id, made.text, made.metadata["k"]) == ("n", "cap", 1)
    assert made.metadata["image_digest"] == digest_of(pictures[1])
    assert made.relationships[NodeRelationship.PARENT] == parent


def test_to_image_nodes_reads_below_data_root_only(pictures: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ImageLoadError):
        to_image_nodes([ImageNode(image_path=str(pictures[0]))], data_root=root)
