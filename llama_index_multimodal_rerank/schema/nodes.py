"""Nodes that embed as pictures.

Rule: a picture is embedded with its text (if it has one) and never with its
metadata, in every way LlamaIndex knows to index it. Metadata is for filters.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from ..images.access import DEFAULT_ACCESS, ImageAccess
from ..images.sources import as_path, is_data_uri, is_url
from .image_text import IMAGE_DIGEST_KEY, ImageText

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..images.sources import ImageSource


class _EmbedsAsPicture(TextNode):
    """What both node classes below share: content that carries the picture."""

    # Kept beside the metadata, which anybody may replace.
    _image_digest: str | None = PrivateAttr(default=None)

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """Return the text; for EMBED and ALL as an :class:`ImageText` that carries the picture.

        EMBED is the text without metadata. ALL is the text with metadata, as for every
        node. Both end in the picture's digest, so that no cache takes one picture for another.
        No file is opened here: the embedding does, as far as its ``data_root`` allows.
        """
        source = node_image(self)
        if source is None or metadata_mode not in (MetadataMode.EMBED, MetadataMode.ALL):
            return super().get_content(metadata_mode)
        mode = MetadataMode.NONE if metadata_mode == MetadataMode.EMBED else metadata_mode
        text = super().get_content(mode)
        digest = self._image_digest or self.metadata.get(IMAGE_DIGEST_KEY)
        if digest is None and (path := as_path(source)) is not None:
            return ImageText(text, source).with_name(f"{path}\0{self.node_id}")
        return ImageText(text, source, digest=digest).with_digest()

    @property
    def hash(self) -> str:
        """Hash of text, metadata and the picture's bytes (ImageNode's own ignores the bytes)."""
        identity = f"{self.get_content(MetadataMode.ALL)}\0{self.text}"
        return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def class_name(cls) -> str:
        """Be stored, and read back by any LlamaIndex installation, as a plain ImageNode."""
        return ImageNode.class_name()


class _IndexedImage(_EmbedsAsPicture):
    """The copy an index keeps of an :class:`ImageTextNode`; equal in all but its Python class.

    ``VectorStoreIndex`` writes the ids of every ``ImageNode`` it stores into its index struct,
    and its retrievers then search among those ids only: an index on a store of N pictures into
    which one is inserted would find just that one. It looks at the class of the *copy* it
    made, so the copy is not an ``ImageNode``.
    """

    image: str | None = None
    image_path: str | None = None
    image_url: str | None = None
    image_mimetype: str | None = None
    text_embedding: list[float] | None = Field(default=None)

    @classmethod
    def get_type(cls) -> str:
        return ObjectType.IMAGE


class ImageTextNode(_EmbedsAsPicture, ImageNode):
    """An ``ImageNode`` that every LlamaIndex index and pipeline embeds as its picture.

    Make it with :func:`image_node` or :func:`load_image_nodes`. What comes back from a vector
    store is a plain ``ImageNode``. One made by hand has no digest of its file: it is told from
    others by path and node id, so caches do not notice when the file changes.
    """

    @property
    def source_node(self) -> RelatedNodeInfo | None:
        """What the node was cut from: None for a picture that is its own document.

        A document store (llama-index-core 0.14.25) that is told of a source deletes the node as its
        source's last one, deletes it again, and raises that it is not there: in a pipeline with
        ``UPSERTS_AND_DELETE``, before the vector store has deleted its row.
        """
        source = super().source_node
        return None if source is not None and source.node_id == self.node_id else source

    @property
    def ref_doc_id(self) -> str | None:
        """Id of the document: its own, or that of what it was cut from."""
        source = super().source_node
        return None if source is None else source.node_id

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy as an index does, into a node that is no ``ImageNode``; see ``_IndexedImage``."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        if deep:
            values = copy.deepcopy(values)
        copied = _IndexedImage.model_construct(**{**values, **(update or {})})
        copied._image_digest = self._image_digest
        return copied  # type: ignore[return-value]


def node_image(node: BaseNode) -> ImageSource | None:
    """Return the source of a node's picture (path, base64 or URL), or None if it has none.

    Works for ``ImageNode``, ``ImageTextNode`` and ``Node``/``ImageDocument`` with an
    ``image_resource``.
    """
    if isinstance(node, Node):
        resource = node.image_resource
        if resource is None:
            return None
        if resource.path is not None:
            return str(resource.path)
        if resource.data is not None:  # base64, see MediaResource
            return _from_base64(resource.data.decode("ascii", "replace"))
        return str(resource.url) if resource.url is not None else None
    if isinstance(node, (ImageNode, _IndexedImage)):
        # In the order of ImageNode.resolve_image.
        return _from_base64(node.image) if node.image else node.image_path or node.image_url
    return None


def _from_base64(data: str) -> ImageSource:
    return data if is_data_uri(data) else f"data:image/*;base64,{data}"


def image_node(
    image: ImageSource,
    *,
    text: str = "",
    metadata: Mapping[str, Any] | None = None,
    id_: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
) -> ImageTextNode:
    """Make one node from one picture.

    Args:
        image: path (stored as a path, the picture is not copied), http(s) URL (stored as the
            URL; embedding it needs ``VisualizedBGEEmbedding(allow_urls=True)``), or bytes,
            ``BytesIO``, base64, data URI or Pillow image. The latter are stored *in the node*
            as base64: fine with Milvus Lite, but Milvus servers refuse fields over 65,536 bytes,
            so prefer paths.
        text: caption, embedded together with the picture.
        metadata: for filters and display; not embedded.
        id_: node id. Default: derived from the absolute path (or URL, or content), so that
            indexing the same picture again replaces it, changed or not.
        data_root: the only folder that files are read from, ``..`` and symbolic links resolved. Set
            it where paths come from others. Default: any file that the process may read.

    Raises:
        ImageLoadError: the picture cannot be read to its end, or lies outside of ``data_root``.
    """
    return make_image_node(
        image, text=text, metadata=metadata, id_=id_, access=ImageAccess(data_root=data_root)
    )


def make_image_node(
    image: ImageSource,
    *,
    text: str,
    metadata: Mapping[str, Any] | None,
    id_: str | None,
    access: ImageAccess,
) -> ImageTextNode:
    """Make one node from one picture that ``access`` lets be read; see :func:`image_node`."""
    path = as_path(image)
    if path is not None:
        return _node_from_path(path, text, metadata, id_, access)
    place: dict[str, Any]
    if is_url(image):
        digest, place = access.digest(image), {"image_url": str(image)}
        default_id = str(uuid.uuid5(uuid.NAMESPACE_URL, str(image)))
    else:
        data, info, digest = access.check(image)
        place = {"image": base64.b64encode(data).decode("ascii"), "image_mimetype": info.mimetype}
        default_id = str(uuid.uuid5(uuid.NAMESPACE_OID, digest))
    return _build_node(id_ or default_id, text, {IMAGE_DIGEST_KEY: digest}, metadata, place)


def _node_from_path(
    path: Path, text: str, metadata: Mapping[str, Any] | None, id_: str | None, access: ImageAccess
) -> ImageTextNode:
    path = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 (Path's raises for unknown users)
    data, info, digest = access.check(path)
    facts = {
        "file_path": str(path),
        "file_name": path.name,
        "file_type": info.mimetype,
        "file_size": len(data),
        "image_width": info.width,
        "image_height": info.height,
        IMAGE_DIGEST_KEY: digest,
    }
    default_id = str(uuid.uuid5(uuid.NAMESPACE_URL, path.as_uri()))
    place = {"image_path": str(path), "image_mimetype": info.mimetype}
    return _build_node(id_ or default_id, text, facts, metadata, place)


def _build_node(
    node_id: str,
    text: str,
    facts: dict[str, Any],
    metadata: Mapping[str, Any] | None,
    place: dict[str, Any],
) -> ImageTextNode:
    fields: dict[str, Any] = {
        "id_": node_id,
        "text": text,
        "metadata": {**facts, **(metadata or {}), IMAGE_DIGEST_KEY: facts[IMAGE_DIGEST_KEY]},
        # Not excluded from embedding texts: see image_text.has_lost_image.
        "excluded_llm_metadata_keys": [*facts],
        # Each picture is its own document, so that delete_ref_doc and upserts work, and no row
        # is stored under the parent "None", which Milvus deletes all at once.
        "relationships": {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=node_id)},
    }
    node = ImageTextNode(**fields, **place)
    node._image_digest = facts[IMAGE_DIGEST_KEY]
    return node


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
        kept = TextNode(id_=node.node_id, text=text, metadata=node.metadata)
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
        ImageLoadError: a picture cannot be read, or lies outside of ``data_root``.
    """
    access = ImageAccess(data_root=data_root)
    return [_to_image_node(node, access) for node in nodes]


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


def require_distinct_content(node: BaseNode) -> None:
    """Check that a pipeline's cache, which is keyed by contents, tells a node's picture from others.

    Raises:
        ValueError: the node has a picture that its content does not name.
    """
    if isinstance(node, _EmbedsAsPicture) or node_image(node) is None:
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
