"""What of a node is embedded, and what is refused because something else would be embedded."""

from __future__ import annotations

from llama_index.core.schema import BaseNode, ImageNode, MetadataMode

from .image_text import IMAGE_DIGEST_KEY, ImageText
from .nodes import EmbedsAsImage, node_image


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
        return ImageText(node.text, source, digest=node.metadata.get(IMAGE_DIGEST_KEY))
    content = node.get_content(MetadataMode.EMBED)
    if not content.strip():  # never with a picture, see get_content
        raise ValueError(f"{type(node).__name__} {node.node_id!r} has neither text nor picture to embed")
    return content
