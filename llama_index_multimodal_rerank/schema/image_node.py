"""image_node: from one picture to one node."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo

from ..images.access import ImageAccess
from ..images.errors import ImageLoadError
from ..images.sources import as_path, describe_source, is_url
from .image_text import IMAGE_DIGEST_KEY
from .nodes import ImageTextNode
from .values import check_text, storable_metadata, surrogate_position

if TYPE_CHECKING:
    from ..images.sources import ImageSource

FILE_FACTS = (
    "file_path",
    "file_name",
    "file_type",
    "file_size",
    "image_width",
    "image_height",
    IMAGE_DIGEST_KEY,
)
"""Keys of the metadata that is read from a picture's file."""


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
        metadata: for filters and display; not embedded. Texts, numbers, True, False, None, and lists and
            dicts of these. Converted are numbers and arrays of NumPy and PyTorch, tuples, dates and times
            (to ISO 8601), ``Path``, ``UUID`` and ``Enum``.
        id_: node id. Default: derived from the absolute path (or URL, or content), so that
            indexing the same picture again replaces it, changed or not.
        data_root: the only folder that files are read from, ``..`` and symbolic links resolved. Set
            it where paths come from others. Default: any file that the process may read.

    Raises:
        ImageLoadError: the picture cannot be read to its end, lies outside of ``data_root``, or has a name
            that is not UTF-8, which neither nodes nor stores can hold.
        NodeValueError: text, id or a value of the metadata is one that stores cannot keep: NaN, ``NaT``,
            bytes, integers beyond 64 bits, half of a surrogate pair, sets, decimals … A ValueError; it
            names the key.
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
    owner = describe_source(image)
    check_text(text, owner, "text")
    if id_ is not None:
        check_text(id_, owner, "id_")
    metadata = storable_metadata(metadata or {}, owner)
    if path is not None:
        return _node_from_path(path, text, metadata, id_, access)
    place: dict[str, Any]
    if is_url(image):
        check_text(image, owner, "image")
        digest, place = access.digest(image), {"image_url": str(image)}
        default_id = default_node_id(str(image))
    else:
        data, info, digest = access.check(image)
        place = {"image": base64.b64encode(data).decode("ascii"), "image_mimetype": info.mimetype}
        default_id = str(uuid.uuid5(uuid.NAMESPACE_OID, digest))
    return _build_node(id_ or default_id, text, {IMAGE_DIGEST_KEY: digest}, metadata, place)


def _node_from_path(
    path: Path, text: str, metadata: Mapping[str, Any], id_: str | None, access: ImageAccess
) -> ImageTextNode:
    path = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 (Path's raises for unknown users)
    check_name(path)
    data, info, digest = access.check(path)
    values = (str(path), path.name, info.mimetype, len(data), info.width, info.height, digest)
    facts = dict(zip(FILE_FACTS, values, strict=True))
    default_id = default_node_id(path)
    place = {"image_path": str(path), "image_mimetype": info.mimetype}
    return _build_node(id_ or default_id, text, facts, metadata, place)


def default_node_id(place: Path | str) -> str:
    """Return the id that the node of a picture gets where none is given.

    Args:
        place: absolute path, or URL.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, place.as_uri() if isinstance(place, Path) else place))


def check_name(path: Path) -> None:
    """Check that a file's name is UTF-8.

    Raises:
        ImageLoadError: it is not.
    """
    if surrogate_position(str(path)) is not None:
        raise ImageLoadError(repr(str(path)), "its name is not UTF-8; rename it")


def _build_node(
    node_id: str,
    text: str,
    facts: dict[str, Any],
    metadata: Mapping[str, Any],
    place: dict[str, Any],
) -> ImageTextNode:
    fields: dict[str, Any] = {
        "id_": node_id,
        "text": text,
        "metadata": {**facts, **metadata, IMAGE_DIGEST_KEY: facts[IMAGE_DIGEST_KEY]},
        # Not excluded from embedding texts: see image_text.has_lost_image.
        "excluded_llm_metadata_keys": [*facts],
        # Each picture is its own document, so that delete_ref_doc and upserts work, and no row
        # is stored under the parent "None", which Milvus deletes all at once.
        "relationships": {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=node_id)},
    }
    node = ImageTextNode(**fields, **place)
    node._image_digest = facts[IMAGE_DIGEST_KEY]
    return node
