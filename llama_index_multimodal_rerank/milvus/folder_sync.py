"""sync_folder: a collection in step with a folder. What changed is embedded, what is gone is deleted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llama_index.core.schema import BaseNode, MetadataMode

from ..data.folders import NOT_A_PICTURE, ImageNodeList, SkippedImage, load_image_nodes
from ..data.listing import LINKED_FOLDER
from ..schema.image_node import FILE_FACTS, default_node_id
from ..schema.image_text import IMAGE_DIGEST_KEY
from ..schema.nodes import ImageTextNode
from .fingerprint import check_fingerprint, fingerprint, remembered_fingerprint

if TYPE_CHECKING:
    from ..embeddings.image_text_embedding import ImageTextEmbedding
    from .vector_store import QuotingMilvusVectorStore

logger = logging.getLogger(__name__)

_FIRST_BATCH, _LARGEST_BATCH, _QUICK_SECONDS = 16, 256, 1.0
"""Pictures that are embedded and written together: so many at first, twice as many after a quick batch. So a
slow machine shows progress often and loses little when it is interrupted, and a fast one is not held up."""

_AT_ONCE = 1000
"""Rows that are deleted, or written with new metadata, together."""


class SyncProgress(NamedTuple):
    """How far a run is.

    Attributes:
        stage: ``"reading"`` the files (their number is not known before), then ``"embedding"``.
        done: pictures that are embedded and written.
        total: pictures that are to be embedded; 0 while reading.
    """

    stage: Literal["reading", "embedding"]
    done: int
    total: int


@dataclass(frozen=True)
class FolderSync:
    """What :func:`sync_folder` did. Files are named by their absolute paths, in sorted order.

    Attributes:
        added: pictures that are new in the collection.
        changed: pictures whose file or caption had changed; embedded again.
        updated: pictures of which other metadata had changed alone; written with the embeddings they had.
        unchanged: how many pictures were left as they are.
        removed: pictures whose rows were deleted, because there is no such picture any more.
        skipped: files that were left out, each with the reason.
        kept: those of ``skipped`` that are still in the collection, as they were when they could be read.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: int
    removed: tuple[str, ...]
    skipped: tuple[SkippedImage, ...]
    kept: tuple[str, ...]

    @property
    def embedded(self) -> int:
        """How many pictures were embedded."""
        return len(self.added) + len(self.changed)

    @property
    def pictures(self) -> int:
        """How many pictures of the folder the collection now holds."""
        return self.embedded + len(self.updated) + self.unchanged + len(self.kept)

    @property
    def unreadable(self) -> tuple[SkippedImage, ...]:
        """Those of ``skipped`` that were meant to be pictures, or may hold some, and cannot be read."""
        return tuple(each for each in self.skipped if each.reason not in (NOT_A_PICTURE, LINKED_FOLDER))


def sync_folder(
    folder: str | os.PathLike[str],
    store: QuotingMilvusVectorStore,
    embed_model: ImageTextEmbedding,
    *,
    recursive: bool = True,
    glob: str | None = None,
    text: Callable[[Path], str] | None = None,
    metadata: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
    on_progress: Callable[[SyncProgress], None] | None = None,
) -> FolderSync:
    """Bring a collection in step with a folder: embed what is new or changed, delete what is gone.

    The collection itself is the memory of what was indexed: rows hold path, digest of the file, caption and
    metadata of their pictures, and are compared with what is in the folder now. So there is no document
    store to keep beside it, and a run that was interrupted is taken up where it ended. Looked at, and
    deleted, are the rows of the folder's pictures under the ids that :func:`load_image_nodes` gives. All
    others are left alone: pictures of other folders, texts, and pictures that were written under ids of their
    own (``image_node(..., id_=...)``). The latter are then in the collection twice; a warning says how many.

    Captions and metadata that rows have stay as long as ``text`` and ``metadata`` tell nothing else.

    A picture that cannot be read, or not any more when it is to be embedded, is left out and named, whatever
    the model's ``on_error`` is. If it was indexed before, its row is kept: a disk that is not there for a
    moment must not cost the index.

    Example:
        Three pictures are indexed; then one is drawn anew, and one deleted.

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from llama_index_multimodal_rerank import VisualizedBGEEmbedding, milvus_store, sync_folder
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> place = TemporaryDirectory()
        >>> photos = Path(place.name, "photos")
        >>> photos.mkdir()
        >>> for surface in ("leopard", "dots", "waves"):
        ...     draw_query_picture(surface, seed=1).save(photos / f"{surface}.png")
        >>> embed_model = VisualizedBGEEmbedding(model_name="demo")
        >>> store = milvus_store(f"{place.name}/photos.db", embed_model)
        >>> sync_folder(photos, store, embed_model).embedded
        3
        >>> draw_query_picture("dots", seed=2).save(photos / "dots.png")
        >>> (photos / "waves.png").unlink()
        >>> done = sync_folder(photos, store, embed_model)
        >>> [Path(path).name for path in done.changed], done.unchanged, len(done.removed)
        (['dots.png'], 1, 1)
        >>> store.client.close()
        >>> place.cleanup()

    Args:
        folder: the folder. How its path is written does not matter, ``..`` among it; links are not resolved.
        store: what :func:`milvus_store` returned.
        embed_model: the model that the store was opened with, or one of the same fingerprint.
        recursive: as :func:`load_image_nodes`.
        glob: as :func:`load_image_nodes`; rows of the folder that do not match any more are deleted.
        text: as :func:`load_image_nodes`. Default: the captions that rows have; new pictures have none.
        metadata: as :func:`load_image_nodes`; it takes the place of what rows have, so ``{}`` removes that.
            Default: what rows have; new pictures have none.
        batch_size: pictures that are embedded and written together, at least 1; an interrupted run keeps all
            but the last so many. Default: 16, and up to 256 on fast machines.
        show_progress: show progress bars.
        on_progress: called now and then; what it raises ends the run, and what is written by then stays.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: there is no such folder. Nothing is done.
        NotADirectoryError: ``folder`` is a file. Nothing is done.
        EmbeddingMismatchError: the collection belongs to another embedding than ``embed_model``. Nothing is
            done.
        ValueError: ``batch_size`` is less than 1; nothing is done. Or no picture is in the folder, and the
            collection holds some of it: a wrong folder, or a disk that is not there; nothing is deleted.
        OSError: Milvus cannot be reached, or cannot write.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, or None for the default, got {batch_size}")
    _check_embedding(store, embed_model)
    # Under "raise", one file that changes meanwhile would end a run of hours.
    embed_model = embed_model.model_copy(update={"on_error": "skip"})
    root = folder_path(folder)
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"not a folder: {str(root)!r}")
    report = on_progress or (lambda progress: None)
    report(SyncProgress("reading", 0, 0))
    stored = _stored_below(root, store)
    by_path = {_path(node): node for node in stored.values()}
    found = load_image_nodes(
        root,
        recursive=recursive,
        glob=glob,
        text=text or (lambda path: _caption(by_path.get(str(path)))),
        metadata=(lambda path: _told(by_path.get(str(path)))) if metadata is None else metadata,
        on_error="skip",
        show_progress=show_progress,
    )
    if not found and stored:
        raise ValueError(
            f"no picture is in {str(root)!r} now, and the collection holds {len(stored)} from there: nothing "
            "was deleted. Is it the right folder, and its disk there? To begin anew, delete the collection"
        )
    differing = [node for node in found if not _same(node, stored.get(node.node_id))]
    new: list[ImageTextNode] = []
    updated: list[ImageTextNode] = []
    for node in differing:
        (updated if _embeds_alike(node, stored.get(node.node_id)) else new).append(node)
    _update(updated, store)
    left_out = _embed(new, store, embed_model, batch_size, show_progress, report)
    skipped = [*found.skipped, *left_out]
    gone = _gone(stored, found, skipped)
    kept = stored.keys() - {*gone} - {node.node_id for node in found}  # could not be read
    for at in range(0, len(gone), _AT_ONCE):
        store.delete_nodes(gone[at : at + _AT_ONCE])
    not_embedded = {each.path for each in left_out}
    embedded = [node for node in new if _path(node) not in not_embedded]
    kept |= {node.node_id for node in new if node.node_id in stored and _path(node) in not_embedded}
    return FolderSync(
        added=_paths(node for node in embedded if node.node_id not in stored),
        changed=_paths(node for node in embedded if node.node_id in stored),
        updated=_paths(updated),
        unchanged=len(found) - len(differing),
        removed=_paths(stored[node_id] for node_id in gone),
        skipped=tuple(sorted(skipped)),
        kept=_paths(stored[node_id] for node_id in kept),
    )


def folder_path(folder: str | os.PathLike[str]) -> Path:
    """Return a folder's path from the root on, as collections know it: links are not resolved.

    Rows are known by the paths of their pictures, so a folder by another name is another folder.
    """
    # Path.absolute() leaves .. as it is, and Path.expanduser() raises for unknown users.
    return Path(os.path.abspath(os.path.expanduser(folder)))  # noqa: PTH100, PTH111


def _check_embedding(store: QuotingMilvusVectorStore, embed_model: ImageTextEmbedding) -> None:
    """Refuse a model whose vectors cannot be compared with those of the store."""
    remembered = remembered_fingerprint(store.client.describe_collection(store.collection_name))
    if remembered is not None:
        sparse = store.sparse_embedding_function if store.enable_sparse else None
        own = fingerprint(embed_model, store.similarity_metric, sparse)
        check_fingerprint(store.collection_name, remembered, own)


def _stored_below(root: Path, store: QuotingMilvusVectorStore) -> dict[str, BaseNode]:
    """Return the rows of a folder's pictures by id, without those that have other ids than we give."""
    below = [node for node in store.all_nodes() if _is_below(_path(node), root)]
    stored = {node.node_id: node for node in below if node.node_id == default_node_id(Path(_path(node)))}
    if len(stored) < len(below):
        logger.warning(
            "The collection holds %d pictures of %r under ids of their own. They are left alone, and "
            "sync_folder adds these pictures once more. To have them once, delete the others by "
            "store.delete_nodes.",
            len(below) - len(stored),
            str(root),
        )
    return stored


def _embed(
    nodes: Sequence[ImageTextNode],
    store: QuotingMilvusVectorStore,
    embed_model: ImageTextEmbedding,
    batch_size: int | None,
    show_progress: bool,
    report: Callable[[SyncProgress], None],
) -> list[SkippedImage]:
    """Embed and write nodes, batch by batch; return those that the model left out."""
    from tqdm.auto import tqdm

    left_out: list[SkippedImage] = []
    if nodes:
        report(SyncProgress("embedding", 0, len(nodes)))
    with tqdm(total=len(nodes), desc="Embedding", unit="picture", disable=not show_progress) as bar:
        size, at = batch_size or _FIRST_BATCH, 0
        while batch := list(nodes[at : at + size]):
            start = time.monotonic()
            embedded = list(embed_model(batch, show_progress=False))
            store.add(embedded)
            there = {node.node_id for node in embedded}
            reasons = {each.node_id: each.reason for each in list(embed_model.skipped)}
            left_out += [
                SkippedImage(_path(node), reasons.get(node.node_id, "it could not be embedded"))
                for node in batch
                if node.node_id not in there
            ]
            at += len(batch)
            bar.update(len(batch))
            report(SyncProgress("embedding", at, len(nodes)))
            if batch_size is None and time.monotonic() - start < _QUICK_SECONDS:
                size = min(2 * size, _LARGEST_BATCH)
    return left_out


def _update(nodes: Sequence[ImageTextNode], store: QuotingMilvusVectorStore) -> None:
    """Write nodes with the embeddings that their rows have."""
    for at in range(0, len(nodes), _AT_ONCE):
        batch = nodes[at : at + _AT_ONCE]
        rows = store.get_nodes(node_ids=[node.node_id for node in batch])
        vectors = {row.node_id: row.embedding for row in rows}
        for node in batch:
            node.embedding = vectors[node.node_id]
        store.add(batch)


def _gone(stored: Mapping[str, BaseNode], found: ImageNodeList, skipped: Sequence[SkippedImage]) -> list[str]:
    """Return the ids of rows whose picture is not there any more; not being readable is not being gone."""
    there = {node.node_id for node in found}
    failed = {Path(each.path) for each in skipped if each.reason not in (NOT_A_PICTURE, LINKED_FOLDER)}
    gone = []
    for node_id, node in stored.items():
        path = Path(_path(node))
        if node_id not in there and failed.isdisjoint((path, *path.parents)):
            gone.append(node_id)
    return gone


def _same(node: BaseNode, stored: BaseNode | None) -> bool:
    """Tell whether a row is what would be written for a node now; the metadata has the file's digest."""
    return stored is not None and node.metadata == stored.metadata and _caption(node) == _caption(stored)


def _embeds_alike(node: BaseNode, stored: BaseNode | None) -> bool:
    """Tell whether the embedding of a row is what a node's would be now: metadata is not embedded."""
    return (
        stored is not None
        and node.metadata[IMAGE_DIGEST_KEY] == stored.metadata.get(IMAGE_DIGEST_KEY)
        and _caption(node) == _caption(stored)
    )


def _caption(node: BaseNode | None) -> str:
    return "" if node is None else node.get_content(MetadataMode.NONE)


def _told(node: BaseNode | None) -> dict[str, Any]:
    """Return the metadata of a row that is not read from the picture's file."""
    if node is None:
        return {}
    return {key: value for key, value in node.metadata.items() if key not in FILE_FACTS}


def _path(node: BaseNode) -> str:
    # Not metadata["file_path"]: texts have that, too, and the user's own metadata may say something else.
    return str(getattr(node, "image_path", None) or "")


def _paths(nodes: Iterable[BaseNode]) -> tuple[str, ...]:
    return tuple(sorted(map(_path, nodes)))


def _is_below(path: str, place: Path) -> bool:
    """Tell whether a path is that of a file or folder, or of something in the folder."""
    return bool(path) and Path(path).is_relative_to(place)
