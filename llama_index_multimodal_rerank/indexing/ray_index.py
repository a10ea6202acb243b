"""index_with_ray: a catalogue of any size, on all machines of a Ray cluster."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..data.folders import SkippedImage, absolute_path
from ..images.access import ImageAccess
from ..images.sources import is_url
from ..schema.values import storable_metadata
from .items import list_items
from .listed_parquet import is_parquet, read_listed
from .stages import KEPT, SKIPPED, WRITTEN, EmbedImages, ReadImages, WriteRows
from .targets import EmbeddingFacts, Target

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

    from ..data.listed_image import ListedImage
    from ..embeddings.image_text_embedding import ImageTextEmbedding

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class IndexedWithRay:
    """What became of the pictures of a run.

    Attributes:
        written: embedded and written.
        kept: were there, with the same id, picture, text and metadata.
        skipped: the pictures that were left out, and why.
    """

    written: int
    kept: int
    skipped: list[SkippedImage] = field(repr=False)


def index_with_ray(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str] | ListedImage],
    embed_model: ImageTextEmbedding,
    target: Target,
    *,
    recursive: bool = True,
    glob: str | None = None,
    text: Callable[[Path], str] | None = None,
    metadata: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None = None,
    report: str | os.PathLike[str] | None = None,
    actors: int = 1,
    num_gpus: float = 0,
    num_cpus: float = 1,
    batch_size: int = 64,
) -> IndexedWithRay:
    """Embed pictures on Ray Data and write them where a ``MilvusVectorStore`` reads them.

    Three stages, each on as many workers as Ray has for it: tasks read, check and decode the pictures;
    actors, each with one model, embed them; tasks write the rows. It runs on the cluster that this process is
    connected to (``ray.init(address=...)``), or on a Ray that is started on this machine. Ray shows the
    progress.

    A run can be repeated at any time, after one that was killed, too: pictures whose rows are there are not
    embedded again, unless their bytes, text or metadata changed. Rows of pictures that are gone stay.
    Pictures that cannot be read, and values that cannot be kept, are left out and named. A worker that dies
    is replaced by Ray, and what it had in hand is done again.

    Example:
        Three drawn mugs, and a file that was cut short, become rows in Parquet files. The second run embeds
        the one that is new.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from llama_index_multimodal_rerank import ParquetFolder, VisualizedBGEEmbedding, index_with_ray
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> folder = Path(tempfile.mkdtemp())
        >>> for colour in ("red", "blue", "yellow"):
        ...     draw_query_picture(Look("mug", "plain", colour), seed=1).save(folder / f"{colour}.png")
        >>> _ = (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:60])
        >>> embed_model = VisualizedBGEEmbedding(model_name="demo")
        >>> rows = ParquetFolder(folder / "rows")
        >>> result = index_with_ray(folder, embed_model, rows, glob="*.png", text=lambda path: path.stem)
        >>> (result.written, result.kept, [Path(path).name for path, reason in result.skipped])
        (3, 0, ['broken.png'])
        >>> draw_query_picture(Look("mug", "plain", "green"), seed=1).save(folder / "green.png")
        >>> result = index_with_ray(folder, embed_model, rows, glob="*.png", text=lambda path: path.stem)
        >>> (result.written, result.kept)
        (1, 3)

    Args:
        source: a folder; a text file of paths or URLs, one a line (``.txt``); a Parquet file or folder
            (``.parquet``) with the column ``image`` (paths or URLs), and if wanted ``text`` and ``id``, all
            others being metadata; or paths, URLs and :class:`ListedImage` (Amazon Reviews:
            ``list_amazon_images(read_amazon_items(path))``). Relative paths begin in the working directory of
            this process. All workers must see the files under the same paths.
        embed_model: goes to the actors as a pickle, without its model, which each loads where it runs. What
            may be read is as its ``data_root`` and ``allow_urls`` say.
        target: :class:`MilvusServer` or :class:`ParquetFolder`.
        recursive: search a folder's subfolders too.
        glob: which files of a folder to look at; see ``load_image_nodes``.
        text: makes a picture's caption from its path; called in the workers. A URL has no path: list it as
            ``ListedImage(url, text=...)``.
        metadata: added to each node; a mapping, or a function of the path, called in the workers; for URLs a
            mapping alone.
        report: file for the pictures left out, a JSON object for each with ``image``, ``id`` and ``reason``.
            It is of this run: the file is written anew.
        actors: how many models there are, at least 1.
        num_gpus: GPUs of each, 0 or more, also parts of one.
        num_cpus: CPUs of each, 0 or more.
        batch_size: pictures that are handed to a model at once, 1 to 2,048.

    Returns:
        How many were written, and how many were there; ``.skipped`` lists those left out.

    Raises:
        ImportError: Ray is not installed.
        FileNotFoundError: ``source`` does not exist.
        EmbeddingMismatchError: the target was filled by another embedding. Nothing is written.
        ConnectionError: the Milvus server does not answer, or went away for more than half a minute. What was
            written stays.
        NodeValueError: ``metadata`` is a mapping with a value that Milvus cannot keep. Nothing is written.
        OSError: ``report`` cannot be written. Nothing else is.
        ValueError: an argument is out of range; ``source`` is of none of these kinds, or holds one id
            twice; ``text`` or ``metadata`` is given for a source that has its own, or as a function for URLs;
            ``recursive`` or ``glob`` for one that is no folder; the actors need more GPUs than this machine
            has, or leave none of its CPUs to the other stages. Nothing is written.
    """
    _check_range("actors", actors, 1, 10_000)
    _check_range("batch_size", batch_size, 1, 2048)
    _check_range("num_gpus", num_gpus, 0, 10_000)
    _check_range("num_cpus", num_cpus, 0, 10_000)
    if metadata is not None and not callable(metadata):
        storable_metadata(metadata, "index_with_ray")
    ray = _import_ray()
    listed = _list(source, recursive=recursive, glob=glob, batch_size=batch_size, texts=(text, metadata))
    if not ray.is_initialized():
        ray.init()
    _check_resources(ray, actors, num_cpus=num_cpus, num_gpus=num_gpus)
    path = Path(os.devnull) if report is None else absolute_path(report)
    path.write_bytes(b"")  # before the target is made, or an old one dropped
    if listed is None:
        logger.warning("No picture was found in %r.", source)
        return IndexedWithRay(0, 0, [])
    facts = _facts(ray, embed_model, num_cpus=num_cpus, num_gpus=num_gpus)
    opened = target.open(facts)
    read = ReadImages(
        target=opened,
        access=ImageAccess(embed_model.allow_urls, embed_model.data_root),
        # That of the model, wherever it runs.
        apply_exif_orientation=facts.fingerprint.get("apply_exif_orientation") == "True",
        text=text,
        metadata=metadata,
    )
    outcomes = (
        listed()
        .map_batches(read, batch_size=batch_size, batch_format="pyarrow")
        .map_batches(
            EmbedImages,
            fn_constructor_args=(embed_model,),
            compute=ray.data.ActorPoolStrategy(size=actors),
            batch_size=batch_size,
            batch_format="pyarrow",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            # Says nothing, but stages with different arguments are not fused: a model would wait in its actor
            # for its pictures to be read.
            runtime_env={},
        )
        .map_batches(WriteRows(opened), batch_size=opened.batch_rows, batch_format="pyarrow")
    )
    result = _collect(outcomes.iter_batches(batch_size=None, batch_format="pyarrow"), path)
    opened.close()
    return result


def _list(
    source: Any, *, recursive: bool, glob: str | None, batch_size: int, texts: tuple[Any, Any]
) -> Callable[[], Dataset] | None:
    """Return what makes the first dataset, of a column ``item``; None if there is no picture."""
    import pyarrow as pa

    is_folder = isinstance(source, (str, os.PathLike)) and absolute_path(source).is_dir()
    if is_parquet(source):
        is_folder = False
    if not is_folder and (glob is not None or not recursive):
        raise ValueError("recursive and glob are for folders of pictures")
    has_texts = any(value is not None for value in texts)
    if is_parquet(source):
        if has_texts:
            raise ValueError("text and metadata are for paths: a Parquet source has its own")
        return read_listed(absolute_path(source))
    items = [*list_items(source, recursive=recursive, glob=glob)]
    if has_texts and any(item.is_listed for item in items):
        raise ValueError("text and metadata are for paths: a ListedImage has its own")
    if any(map(callable, texts)) and (urls := [item.image for item in items if is_url(item.image)]):
        raise ValueError(
            f"text and metadata as functions are called with paths, and {urls[0]!r} is a URL: list URLs as "
            "ListedImage(url, text=..., metadata=...), or give metadata as a mapping"
        )
    lines = [item.to_json() for item in items]
    tables = [
        pa.table({"item": lines[start : start + batch_size]}) for start in range(0, len(lines), batch_size)
    ]

    def from_tables() -> Dataset:
        from ray.data import from_arrow

        return from_arrow(tables)

    return from_tables if tables else None


def _facts(ray: Any, embed_model: ImageTextEmbedding, **resources: float) -> EmbeddingFacts:
    """Ask a worker for dimension and fingerprint: here there may be no room for the model."""
    # One call, or the worker would keep its GPU.
    remote = ray.remote(max_calls=1, **resources)(_embedding_facts)
    facts: EmbeddingFacts = ray.get(remote.remote(embed_model))
    return facts


def _embedding_facts(embed_model: ImageTextEmbedding) -> EmbeddingFacts:
    return EmbeddingFacts(embed_model.dim, embed_model.fingerprint)


def _collect(batches: Iterator[pa.Table], report: Path) -> IndexedWithRay:
    counts = {WRITTEN: 0, KEPT: 0}
    skipped: list[SkippedImage] = []
    with report.open("w", encoding="utf-8") as file:
        for batch in batches:
            for row in batch.to_pylist():
                if row["outcome"] != SKIPPED:
                    counts[row["outcome"]] += 1
                    continue
                image = json.loads(row["image"])
                skipped.append(SkippedImage(image, row["reason"]))
                file.write(json.dumps({"image": image, "id": row["id"], "reason": row["reason"]}) + "\n")
            file.flush()
    return IndexedWithRay(counts[WRITTEN], counts[KEPT], skipped)


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            f"index_with_ray needs Ray Data ({error}): pip install 'llama-index-multimodal-rerank[ray]'"
        ) from error
    return ray


def _check_range(name: str, value: float, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} must be from {lowest} to {highest}, got {value}")


def _check_resources(ray: Any, actors: int, *, num_cpus: float, num_gpus: float) -> None:
    """Refuse actors that this machine has no room for: Ray would wait for ever."""
    # A cluster may grow; one machine does not.
    if len(ray.nodes()) > 1:
        return
    there = ray.cluster_resources()
    gpus, cpus = float(there.get("GPU", 0)), float(there.get("CPU", 0))
    if gpus < actors * num_gpus:
        raise ValueError(
            f"actors * num_gpus is {actors * num_gpus:g}, and Ray has {gpus:g} GPUs here. Give fewer actors, "
            "or a smaller num_gpus (parts of one, such as 0.5, share it; 0 computes on the CPU)."
        )
    if cpus < actors * num_cpus + 1:
        raise ValueError(
            f"actors * num_cpus is {actors * num_cpus:g} of the {cpus:g} CPUs that Ray has here, and reading "
            "and writing need one more. Give fewer actors, a smaller num_cpus, or ray.init(num_cpus=...)."
        )
