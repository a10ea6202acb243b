"""What of a node is embedded, and what is refused because something else would be embedded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    MetadataMode,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
)

from .image_text import IMAGE_DIGEST_KEY, ImageText
from .nodes import EmbedsAsImage, describe_node, node_image
from .not_the_image import is_decoded_image

FACT_KEYS = frozenset(
    {"file_path", "file_name", "file_type", "file_size", "image_width", "image_height", IMAGE_DIGEST_KEY}
)
"""Metadata that nodes of one file have in common."""

LOST_IMAGE = "names a picture but does not carry it"
LOST_IMAGE_ADVICE = (
    "A text splitter, or a node read back from a store, lost it on the way; embedding the text would embed "
    "something else. Index pictures with IngestionPipeline(transformations=[embed_model]) or "
    "from_documents(..., transformations=[embed_model]), without a splitter, and turn nodes from a store "
    "into indexable ones with image_node(node.image_path)."
)

DECODED_IMAGE = "is made of a picture's bytes"
DECODED_IMAGE_ADVICE = (
    "A reader took the file for a text. Read pictures with load_image_nodes(folder), or make a node of each "
    "with image_node(path)."
)

IMAGE_METADATA_ADVICE = (
    "VectorStoreIndex embeds an ImageNode without text as its metadata. Pass the nodes through "
    "to_image_nodes first: VectorStoreIndex(to_image_nodes(nodes), ...)."
)


def require_own_image(node: BaseNode) -> None:
    """Check that a node without a picture is not what a text splitter or a reader left of one.

    Words tell nothing: an author may write what he likes. What tells is metadata with the digest of a
    picture (unless it is excluded from embedding), a source that is a picture, or a text that is made of
    the bytes of one.

    Raises:
        ValueError: it is.
    """
    if node_image(node) is not None:
        return
    if is_decoded_image(node.get_content(MetadataMode.NONE)):
        raise ValueError(f"{describe_node(node)} {DECODED_IMAGE}. {DECODED_IMAGE_ADVICE}")
    source = node.relationships.get(NodeRelationship.SOURCE)
    names_digest = (
        IMAGE_DIGEST_KEY in node.metadata and IMAGE_DIGEST_KEY not in node.excluded_embed_metadata_keys
    )
    cut_from_image = (
        isinstance(source, RelatedNodeInfo)
        and source.node_id != node.node_id
        and source.node_type == ObjectType.IMAGE
    )
    if names_digest or cut_from_image:
        raise ValueError(f"{describe_node(node)} {LOST_IMAGE}. {LOST_IMAGE_ADVICE}")


def require_distinct_content(node: BaseNode) -> None:
    """Check that a pipeline's cache, which is keyed by contents, tells a node's picture from others.

    Raises:
        ValueError: the node has a picture that its content does not name.
    """
    if isinstance(node, EmbedsAsImage) or node_image(node) is None:
        return
    if isinstance(node, ImageNode) and node.metadata.get(IMAGE_DIGEST_KEY):  # as a store returns it
        return
    raise ValueError(
        f"the content of {type(node).__name__} {node.node_id!r} does not tell which picture it is: the cache "
        "of an IngestionPipeline would take one picture for another, or a changed one for the old one. Pass "
        "the nodes through to_image_nodes first: run(nodes=to_image_nodes(nodes))."
    )


def require_distinct_ids(nodes: Iterable[BaseNode]) -> None:
    """Check that no two different nodes have one id: in a store the second would replace the first.

    Raises:
        ValueError: two have; it names both.
    """
    seen: dict[str, BaseNode] = {}
    for node in nodes:
        other = seen.setdefault(node.node_id, node)
        if other is not node and other.hash != node.hash:
            first, second = (_brief({"text": one.get_content(), **one.metadata}) for one in (other, node))
            raise ValueError(
                f"two different nodes have one id, and in a store the second would replace the first: "
                f"{describe_node(node)} is {first} and {second}. By default the id is that of the picture; "
                "give nodes of one picture ids of their own: image_node(..., id_=...)."
            )


def _brief(values: dict[str, Any]) -> str:
    shown = {key: value for key, value in values.items() if value != "" and key not in FACT_KEYS}
    brief = ascii(shown)
    return brief if len(brief) <= 200 else f"{brief[:199]}…"


def embedding_content(node: BaseNode) -> str:
    """Return what of a node is embedded: an :class:`ImageText`, or a plain text.

    Raises:
        ValueError: the node has neither text nor picture, or is an ``ImageNode`` without one.
    """
    source = node_image(node)
    if isinstance(node, ImageNode) and source is None:
        raise ValueError(
            f"ImageNode {node.node_id!r} has no picture: image, image_path and image_url are all empty "
            "(ImageNode drops image_resource=MediaResource(data=...)). Pass image_path, or use "
            "image_node(data)."
        )
    if isinstance(node, ImageNode):
        # Not get_content, which would read the picture if its digest is not known.
        digest = node.metadata.get(IMAGE_DIGEST_KEY)
        if digest and source is not None:
            return ImageText.of_known_digest(node.text, source, digest)
        return ImageText(node.text, source)
    content = node.get_content(MetadataMode.EMBED)
    if not content.strip():  # never with a picture, see get_content
        raise ValueError(f"{type(node).__name__} {node.node_id!r} has neither text nor picture to embed")
    return ImageText(content)  # a text, whatever it says: require_own_image has looked at the node
