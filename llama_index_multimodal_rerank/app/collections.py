"""Collections to search: an existing one, one of a folder, or the demo's catalogue."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import VectorStoreIndex
from llama_index.core.utils import get_cache_dir

from ..demo.catalogue import draw_catalogue
from ..milvus.fingerprint import remembered_fingerprint
from ..milvus.folder_sync import FolderSync, SyncProgress, folder_path, sync_folder
from ..milvus.store import describe_collection, milvus_store
from ..schema.nodes import node_image
from .metadata_fields import MetadataField, metadata_fields
from .models import DEFAULT_EMBEDDING, DEMO, ModelChoice, Models

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from ..images.sources import ImageSource
    from ..milvus.vector_store import QuotingMilvusVectorStore

MODEL_PROPERTY = "llama_index_multimodal_rerank.model_name"
"""Collection property with the name that the embedding was chosen by, so that nobody has to give it again."""

COLLECTION = "images"
"""Name of collections, where none is given."""

_RELEASED = {
    "bge-visualized-demo": DEMO,
    "bge-visualized-base-en-v1.5": DEFAULT_EMBEDDING,
    "bge-visualized-m3": "BAAI/bge-visualized-m3",
}
"""What collections that were not made here call their models, and the names these are chosen by."""

OnProgress = Callable[[SyncProgress], None]


class NoCollectionError(ValueError):
    """There is no collection where one is to be searched."""


class NoPicturesError(ValueError):
    """There is no picture in a folder that was to be indexed."""


@dataclass(frozen=True)
class CollectionSource:
    """What is to be searched: ``uri``, ``images``, both (a folder kept in that collection), or neither.

    Attributes:
        uri: Milvus Lite file (``.db``) or server address. Default: a file in the cache folder of LlamaIndex,
            one for each folder and model.
        images: a folder of pictures, which the collection is brought in step with when it is opened.
            Default with ``uri``: the collection is taken as it is. Without: the demo's drawn catalogue.
        name: of the collection.
        token: for Milvus servers and Zilliz Cloud.
    """

    uri: str | None = None
    images: Path | None = None
    name: str = COLLECTION
    token: str = field(default="", repr=False)

    @property
    def is_demo(self) -> bool:
        """Whether it is the demo's catalogue."""
        return self.images is None and self.uri is None


@dataclass(frozen=True)
class Collection:
    """An open collection with the models that search it. Threads may share it.

    Attributes:
        source: what it was opened by.
        uri: where it is.
        store: the vector store.
        index: an index on the store.
        models: the embedding that filled it, and a reranker.
        title: what to call it.
    """

    source: CollectionSource
    uri: str
    store: QuotingMilvusVectorStore = field(repr=False)
    index: VectorStoreIndex = field(repr=False)
    models: Models = field(repr=False)
    title: str

    def count(self) -> int:
        """Return how many pictures it holds."""
        rows = self.store.client.query(self.source.name, filter="", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def sync(
        self,
        folder: Path,
        *,
        show_progress: bool = False,
        on_progress: OnProgress | None = None,
        **kwargs: Any,
    ) -> FolderSync:
        """Bring the collection in step with a folder; see :func:`.sync_folder`.

        Searches go on meanwhile, and find what is there by then.

        Raises:
            NoPicturesError: the folder has no picture that can be read.
            Exception: as :func:`.sync_folder`.
        """
        done = sync_folder(
            folder,
            self.store,
            self.models.embed_model,
            show_progress=show_progress,
            on_progress=on_progress,
            **kwargs,
        )
        if not done.pictures:
            raise NoPicturesError(f"no picture was found in {str(folder)!r}{_unreadable(done)}")
        return done

    def fields(self) -> tuple[MetadataField, ...]:
        """Return the metadata that can be filtered by."""
        return metadata_fields(node.metadata for node in self.store.all_nodes())

    def node(self, node_id: str) -> BaseNode | None:
        """Return a picture's node; None if the collection has no such id."""
        found = self.store.get_nodes(node_ids=[node_id])
        return next((node for node in found if node.node_id == node_id), None)

    def image_of(self, node_id: str) -> ImageSource:
        """Return where the picture of a result is, to search on from it, or to show it.

        Raises:
            NoCollectionError: the collection has no picture of this id.
        """
        node = self.node(node_id)
        source = None if node is None else node_image(node)
        if source is None:
            raise NoCollectionError(f"no picture of this collection has the id {node_id[:120]!r}")
        return source

    def close(self) -> None:
        """Let go of the file or the server."""
        self.store.client.close()


def open_collection(
    source: CollectionSource,
    choice: ModelChoice | None = None,
    *,
    show_progress: bool = False,
    on_progress: OnProgress | None = None,
) -> tuple[Collection, FolderSync | None]:
    """Open what is to be searched, and bring it in step with its folder, if it has one.

    Args:
        source: what.
        choice: which models, as far as that is not left to the collection.
        show_progress: show progress bars.
        on_progress: called now and then while pictures are read and embedded.

    Returns:
        The collection, and what was indexed; None where there is no folder.

    Raises:
        NoCollectionError: there is no collection at ``uri``, and no folder to make one of.
        EmbeddingMismatchError: the collection was filled by another model; a ValueError.
        FileNotFoundError: there is no such folder.
        NoPicturesError: the folder has no picture.
        OSError: Milvus, or a model, cannot be reached.
        ValueError: a name or an address is not usable.
    """
    collection = connect(source, choice)
    try:
        return collection, _synced(collection, show_progress=show_progress, on_progress=on_progress)
    except BaseException:
        collection.close()
        raise


def _synced(collection: Collection, **progress: Any) -> FolderSync | None:
    source = collection.source
    if source.is_demo:
        folder = _cache() / "demo-catalogue"
        drawn = draw_catalogue(folder, show_progress=progress["show_progress"])
        shown = {each.path.name: each.look for each in drawn}

        def describe(path: Path) -> dict[str, Any]:
            look = shown[path.name]
            return {"title": str(look), "kind": look.kind, "surface": look.surface, "colour": look.colour}

        return collection.sync(folder, metadata=describe, **progress)
    return None if source.images is None else collection.sync(source.images, **progress)


def connect(
    source: CollectionSource, choice: ModelChoice | None = None, *, models: Models | None = None
) -> Collection:
    """As :func:`open_collection`, without bringing anything in step: what is there now can be searched.

    A collection of a folder, or of the demo, is made if it is not there; it is empty then.

    Args:
        source: what.
        choice: which models, as far as that is not left to the collection.
        models: models that are there already, instead of a choice.
    """
    choice = choice or ModelChoice()
    if source.images is not None and not folder_path(source.images).is_dir():  # before anything is made
        raise FileNotFoundError(f"no such folder: {str(source.images)!r}")
    remembered = None
    if source.uri is not None:
        description = describe_collection(source.uri, source.name, token=source.token)
        if description is None and source.images is None:
            raise NoCollectionError(
                f"there is no collection {source.name!r} at {source.uri!r}: check address and name, or "
                f"make it of a folder: multimodal-rerank index FOLDER --uri {source.uri}"
            )
        remembered = _remembered_model(description)
    if models is None:
        default = DEMO if source.is_demo else DEFAULT_EMBEDDING
        models = Models(choice.embedding or remembered or default, choice)
    embedding = models.embedding_name
    uri = source.uri or str(default_uri(source.images, embedding))
    store = milvus_store(uri, models.embed_model, collection_name=source.name, token=source.token)
    if remembered is None:
        store.client.alter_collection_properties(source.name, {MODEL_PROPERTY: _lasting(embedding)})
    index = VectorStoreIndex.from_vector_store(store, embed_model=models.embed_model)
    return Collection(source, uri, store, index, models, _title(source))


def default_uri(folder: Path | None, embedding: str) -> Path:
    """Return the Milvus Lite file of a folder and a model in LlamaIndex' cache folder.

    Args:
        folder: of pictures; None for the demo's catalogue.
        embedding: name of the model.
    """
    if folder is None:
        place, name = "", "demo"
    else:
        place = str(folder_path(folder))
        name = re.sub(r"[^A-Za-z0-9-]+", "-", Path(place).name).strip("-")[:40] or "pictures"
    digest = hashlib.sha256(f"{place}\0{_lasting(embedding)}".encode("utf-8", "surrogatepass")).hexdigest()
    return _cache() / f"{name}-{digest[:12]}.db"


def _unreadable(done: FolderSync) -> str:
    bad = done.unreadable
    if not bad:
        return ""
    files = "1 file" if len(bad) == 1 else f"{len(bad)} files"
    more = ", and others" if len(bad) > 1 else ""
    return f"; {files} cannot be read: {Path(bad[0].path).name} ({bad[0].reason}){more}"


def _cache() -> Path:
    try:
        folder = Path(get_cache_dir()) / "multimodal_rerank"
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the cache folder {error.filename!r} cannot be made ({error.strerror}): set "
            "LLAMA_INDEX_CACHE_DIR to a folder that you may write to, or give a place with --uri"
        ) from error
    return folder


def _lasting(embedding: str) -> str:
    """Return a name that means the same from another folder."""
    path = Path(embedding).expanduser()
    return str(path.absolute()) if embedding != DEMO and path.exists() else embedding


def _remembered_model(description: dict[str, Any] | None) -> str | None:
    if description is None:
        return None
    named = description.get("properties", {}).get(MODEL_PROPERTY)
    if named:
        return str(named)
    fingerprint = remembered_fingerprint(description) or {}
    return _RELEASED.get(fingerprint.get("model", ""))


def _title(source: CollectionSource) -> str:
    if source.is_demo:
        return "the demo's drawn catalogue"
    return str(source.images) if source.images is not None else f"{source.uri} ({source.name})"
