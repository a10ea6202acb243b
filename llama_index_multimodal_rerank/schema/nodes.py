"""Nodes that embed as pictures.

Rule: a picture is embedded with its text (if it has one) and never with its
metadata, in every way LlamaIndex knows to index it. Metadata is for filters.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    MetadataMode,
    Node,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from ..images.sources import as_path, is_data_uri
from .image_text import IMAGE_DIGEST_KEY, ImageText
from .values import check_text, storable_metadata, without_arrays

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..images.sources import ImageSource


class EmbedsAsImage(TextNode):
    """What both node classes below share: content that carries the picture."""

    # Kept beside the metadata, which anybody may replace.
    _image_digest: str | None = PrivateAttr(default=None)
    _left_out: bool = PrivateAttr(default=False)

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """Return the text; for EMBED and ALL as an :class:`ImageText` that carries the picture.

        EMBED is the text without metadata. ALL is the text with metadata, as for every
        node. Both end in the picture's digest, so that no cache takes one picture for another.
        No file is opened here: the embedding does, as far as its ``data_root`` allows.

        Raises:
            NodeValueError: for EMBED, a value of the node is one that stores cannot keep.
        """
        source = node_image(self)
        if source is None or metadata_mode not in (MetadataMode.EMBED, MetadataMode.ALL):
            return super().get_content(metadata_mode)
        if metadata_mode == MetadataMode.EMBED:
            storable_values(self)  # an index embeds what is returned here, without a look at the node
            text = super().get_content(MetadataMode.NONE)
        else:  # of which pipelines make keys, in UTF-8, before they ask us for anything
            text = super().get_content(metadata_mode).encode("utf-8", "backslashreplace").decode("utf-8")
        digest = self._image_digest or self.metadata.get(IMAGE_DIGEST_KEY)
        if digest is None and (path := as_path(source)) is not None:
            return ImageText(text, source).with_name(f"{path}\0{self.node_id}")
        return ImageText(text, source, digest=digest).with_digest()

    @property
    def hash(self) -> str:
        """Hash of text, metadata and the picture's bytes (ImageNode's own ignores the bytes).

        Once the node was left out of a run it is another one: a document store remembers the hashes of all
        nodes that a pipeline was given, and would take the picture for one that is indexed already.
        """
        left_out = "left out" if self._left_out else ""
        identity = f"{self.get_content(MetadataMode.ALL)}\0{self.text}{left_out}"
        return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def class_name(cls) -> str:
        """Be stored, and read back by any LlamaIndex installation, as a plain ImageNode."""
        return ImageNode.class_name()


class _IndexedImage(EmbedsAsImage):
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


class ImageTextNode(EmbedsAsImage, ImageNode):
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
        values["metadata"] = storable_metadata(self.metadata, describe_node(self))
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


def describe_node(node: BaseNode) -> str:
    """Name a node in an error: its class, its id and, if it has one, its file."""
    path = node.metadata.get("file_path") or getattr(node, "image_path", None)
    name = ImageTextNode.__name__ if isinstance(node, _IndexedImage) else type(node).__name__
    return f"{name} {node.node_id!r}" + (f" ({path!a})" if isinstance(path, str) else "")


def storable_values(node: BaseNode) -> dict[str, Any]:
    """Check a node's id, text and path, and return its metadata as stores keep it.

    Raises:
        NodeValueError: a store could not write one of them; see :mod:`.values`.
    """
    owner = describe_node(node)
    check_text(node.node_id, owner, "id_")
    check_text(node.get_content(MetadataMode.NONE), owner, "text")
    if (path := getattr(node, "image_path", None)) is not None:
        check_text(path, owner, "image_path")
    return storable_metadata(node.metadata, owner)


def with_storable_metadata(node: BaseNode) -> BaseNode:
    """Return a node whose metadata a store can write: the same one wherever possible.

    Raises:
        NodeValueError: a store could not write something else of it.
    """
    metadata = without_arrays(node.metadata, storable_values(node))
    return node if metadata is node.metadata else node.model_copy(update={"metadata": metadata})
