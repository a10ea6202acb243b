"""Other people's nodes: made into nodes that stores keep whole, and that caches tell apart."""

from __future__ import annotations

import os
from collections.abc import Sequence

from llama_index.core.schema import BaseNode, Document, ImageNode, Node, TextNode

from ..images.access import DEFAULT_ACCESS, ImageAccess
from .image_node import make_image_node
from .nodes import ImageTextNode, node_image, storable_values


def to_storable_node(node: BaseNode, access: ImageAccess = DEFAULT_ACCESS) -> BaseNode:
    """Return a node that a vector store can keep whole: the same one wherever possible.

    A ``Node`` or ``ImageDocument`` with a picture becomes an :class:`ImageTextNode`, a ``Node``
    with text a ``TextNode``, each with the same id, metadata and relationships: the Milvus
    store fails on a ``Node``, and reads an ``ImageDocument`` back without its picture.

    Args:
        node: any node.
        access: what may be read for it.

    Raises:
        ValueError: the node is audio or video, which nothing here can embed.
        ImageLoadError: its picture cannot be read.
    """
    if not isinstance(node, Node):
        return node
    if node.audio_resource is not None or node.video_resource is not None:
        raise ValueError(
            f"node {node.node_id!r} holds audio or video; only text and pictures can be embedded"
        )
    text = node.text_resource.text or "" if node.text_resource else ""
    source = node_image(node)
    kept: TextNode
    if source is not None:
        kept = make_image_node(source, text=text, metadata=node.metadata, id_=node.node_id, access=access)
    elif isinstance(node, Document):
        return node
    else:
        kept = TextNode(id_=node.node_id, text=text, metadata=storable_values(node))
        kept.excluded_embed_metadata_keys = node.excluded_embed_metadata_keys
    kept.excluded_llm_metadata_keys = [*kept.excluded_llm_metadata_keys, *node.excluded_llm_metadata_keys]
    kept.relationships = {**kept.relationships, **node.relationships}
    return kept


def to_image_nodes(
    nodes: Sequence[BaseNode], *, data_root: str | os.PathLike[str] | None = None
) -> list[BaseNode]:
    """Make other people's nodes with pictures into nodes that pipelines and caches tell apart.

    ``IngestionPipeline(transformations=[embed_model]).run(nodes=to_image_nodes(documents))``

    Args:
        nodes: what readers and stores return: ``ImageDocument``, ``Node``, ``ImageNode``, text nodes, mixed.
            Call it anew before each run, so that changed files are noticed.
        data_root: the only folder that files are read from; see :func:`image_node`.

    Returns:
        The nodes, in order. One with a picture becomes an :class:`ImageTextNode` that knows the digest of its
        picture, with the same id, text, metadata and relationships. Text nodes, and nodes that
        :func:`image_node` made, are returned as they are.

    Raises:
        ValueError: a node is audio or video.
        NodeValueError: a node holds a value that stores cannot keep; see :func:`image_node`.
        ImageLoadError: a picture cannot be read, or lies outside of ``data_root``.
    """
    access = ImageAccess(data_root=data_root)
    made = [_to_image_node(node, access) for node in nodes]
    for node in made:
        storable_values(node)
    return made


def _to_image_node(node: BaseNode, access: ImageAccess) -> BaseNode:
    source = node_image(node)
    if not isinstance(node, ImageNode) or source is None:
        return to_storable_node(node, access)
    if isinstance(node, ImageTextNode) and node._image_digest is not None:
        return node
    made = make_image_node(source, text=node.text, metadata=node.metadata, id_=node.node_id, access=access)
    made.excluded_llm_metadata_keys = [*made.excluded_llm_metadata_keys, *node.excluded_llm_metadata_keys]
    made.relationships = {**made.relationships, **node.relationships}
    return made
