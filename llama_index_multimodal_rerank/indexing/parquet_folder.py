"""ParquetFolder: rows in files that Milvus imports in bulk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..milvus.fingerprint import check_fingerprint
from .items import content_key
from .rows import dynamic_part
from .targets import EmbeddingFacts

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINT_FILE = "embedding.json"
HOW_TO_IMPORT = "how_to_import.txt"
DYNAMIC = "$meta"
"""The column of a collection in which Milvus keeps what has no column of its own, as JSON."""

_COLUMNS = {"text_key": "text", "embedding_field": "embedding", "doc_id_field": "doc_id"}
_OWN = {"id", "doc_id", "text", "embedding"}

_ROWS = re.compile(r"rows-(\d{6,})-[0-9a-f]{16}\.parquet")
_PARTIAL = re.compile(rf"({_ROWS.pattern}|{FINGERPRINT_FILE}|{HOW_TO_IMPORT})\.[0-9a-f]{{32}}\.partial")
"""Names of our files: others are the user's."""

_HOW_TO = """\
# These files hold the rows that a MilvusVectorStore writes: columns id, doc_id, text, embedding and $meta, in
# which Milvus keeps everything else (_node_content, _node_type, metadata). {files} files, {rows} rows.
#
# 1. Make the collection, of the same embedding ({dim} dimensions):
#        store = milvus_store("http://HOST:19530", embed_model, collection_name="COLLECTION")
# 2. Copy the *.parquet files to the server's bucket; below, FOLDER is their place in it.
# 3. Import them (pip install "pymilvus[bulk_writer]"):

from pathlib import Path
from pymilvus.bulk_writer import bulk_import, get_import_progress

server = {{"url": "http://HOST:19530", "api_key": "USER:PASSWORD"}}
files = [["FOLDER/" + path.name] for path in sorted(Path(".").glob("*.parquet"))]
job = bulk_import(collection_name="COLLECTION", files=files, **server).json()
print(get_import_progress(job_id=job["data"]["jobId"], **server).json())

# Repeat the last line until its state is "Completed". An import adds rows, and replaces none: import into an
# empty collection.
"""


class ParquetFolder:
    """A folder of Parquet files, with the columns that ``pymilvus.bulk_writer.bulk_import`` reads.

    Args:
        folder: made if it is missing. All workers must see it under this path; of one run at a time.
        rows_per_file: rows of a file, at least 1; 10,000 of 768 dimensions have about 40 MB.

    Raises:
        ValueError: ``rows_per_file`` is less than 1.
    """

    def __init__(self, folder: str | os.PathLike[str], *, rows_per_file: int = 10_000) -> None:
        if rows_per_file < 1:
            raise ValueError(f"rows_per_file must be at least 1, got {rows_per_file}")
        self._folder = Path(folder).expanduser().absolute()
        self._rows_per_file = rows_per_file

    def open(self, embedding: EmbeddingFacts) -> OpenParquetFolder:
        """Make the folder, or look at what is there: rows of earlier runs, also of killed ones.

        Raises:
            EmbeddingMismatchError: it was filled by another embedding.
            FileExistsError: it holds Parquet files that are not ours.
            OSError: it cannot be written.
        """
        import ray

        self._folder.mkdir(parents=True, exist_ok=True)
        facts = {**embedding.fingerprint, "dim": str(embedding.dim)}
        remembered = self._folder / FINGERPRINT_FILE
        for path in _files(self._folder):
            if not _ROWS.fullmatch(path.name):
                raise FileExistsError(
                    f"{str(path)!r} is no file that ParquetFolder writes. Choose an empty folder."
                )
        if remembered.exists():
            check_fingerprint(str(self._folder), json.loads(remembered.read_text("utf-8")), facts)
        elif _files(self._folder):
            raise FileExistsError(
                f"{str(self._folder)!r} holds Parquet files and no {FINGERPRINT_FILE}, which says what "
                "embedding filled it. Choose an empty folder."
            )
        else:
            _replace(remembered, lambda path: path.write_text(json.dumps(facts, sort_keys=True), "utf-8"))
        for left in self._folder.glob("*.partial"):  # by a process that was killed
            if _PARTIAL.fullmatch(left.name):
                left.unlink()
        drop_superseded(self._folder)
        runs = [int(path.name.split("-")[1]) for path in _files(self._folder)]
        return OpenParquetFolder(
            folder=self._folder,
            run=max(runs, default=0) + 1,
            dim=embedding.dim,
            known=ray.put(_known_rows(self._folder)),
            columns=_COLUMNS,
            batch_rows=self._rows_per_file,
        )


@dataclass(frozen=True)
class OpenParquetFolder:
    """A folder that is ready, as the workers know it; see :class:`~.targets.OpenTarget`.

    Attributes:
        folder: where the files are.
        run: files of a later run replace rows of earlier ones.
        dim: length of the vectors.
        known: Ray's reference to the table of ids and content keys of earlier runs.
    """

    folder: Path
    run: int
    dim: int
    known: Any
    columns: Mapping[str, str]
    batch_rows: int

    def stored(self, ids: Sequence[str]) -> dict[str, str]:
        """See :class:`~.targets.OpenTarget`."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import ray

        known = ray.get(self.known)
        found = known.filter(pc.is_in(known["id"], value_set=pa.array(ids, pa.string())))
        return dict(zip(found["id"].to_pylist(), found["key"].to_pylist(), strict=True))

    def write(self, rows: list[dict[str, Any]]) -> None:
        """See :class:`~.targets.OpenTarget`: a file is whole, or it is not there."""
        import pyarrow.parquet as pq

        digest = hashlib.sha256("\0".join(row["id"] for row in rows).encode()).hexdigest()
        table = to_table(rows, self.dim)
        name = f"rows-{self.run:06d}-{digest[:16]}.parquet"
        _replace(self.folder / name, lambda path: pq.write_table(table, path))

    def close(self) -> None:
        """See :class:`~.targets.OpenTarget`."""
        import pyarrow.parquet as pq

        drop_superseded(self.folder)
        files = _files(self.folder)
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        text = _HOW_TO.format(files=len(files), rows=rows, dim=self.dim)
        _replace(self.folder / HOW_TO_IMPORT, lambda path: path.write_text(text, "utf-8"))


def to_table(rows: Sequence[Mapping[str, Any]], dim: int) -> pa.Table:
    """Return rows of a store in the columns that Milvus imports.

    What has no column in the collection goes into ``$meta``; columns of other names an import passes over.

    Args:
        rows: each with id, text and vector.
        dim: length of the vectors.
    """
    import pyarrow as pa

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("doc_id", pa.string()),
            ("text", pa.string()),
            ("embedding", pa.list_(pa.float32())),
            (DYNAMIC, pa.string()),
        ]
    )
    for row in rows:
        if len(row["embedding"]) != dim:
            raise ValueError(f"row {row['id']!r} has {len(row['embedding'])} dimensions, not {dim}")
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in sorted(_OWN)}
    columns[DYNAMIC] = [json.dumps(dynamic_part(row, _OWN), ensure_ascii=False) for row in rows]
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def read_rows(folder: str | os.PathLike[str]) -> Iterator[list[dict[str, Any]]]:
    """Read the rows back as a store writes them, for ``store.client.upsert(store.collection_name, rows)``.

    For servers that import nothing, and for Milvus Lite.

    Args:
        folder: that a :class:`ParquetFolder` filled.

    Yields:
        Up to 500 rows at a time.
    """
    yield from _rows(Path(folder), ["id", "doc_id", "text", "embedding"])


def _rows(folder: Path, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    for path in _files(folder):
        for batch in pq.ParquetFile(path).iter_batches(500, columns=[*columns, DYNAMIC]):
            yield [{**json.loads(row.pop(DYNAMIC)), **row} for row in batch.to_pylist()]


def drop_superseded(folder: Path) -> None:
    """Leave of rows with one id the last that was written; the others go."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    seen: set[str] = set()
    for path in reversed(_files(folder)):
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        stays = [id_ not in seen for id_ in ids]
        seen.update(ids)
        if all(stays):
            continue
        if not any(stays):
            path.unlink()
            continue
        kept = pq.read_table(path).filter(pc.equal(pa.array(stays), True))
        _replace(path, lambda place, kept=kept: pq.write_table(kept, place))


def _known_rows(folder: Path) -> pa.Table:
    import pyarrow as pa

    ids, keys = [], []
    for rows in _rows(folder, ["id", "text"]):  # without the vectors, nearly all of a file
        for row in rows:
            ids.append(row["id"])
            keys.append(content_key(row["text"], json.loads(row["_node_content"])["metadata"]))
    return pa.table({"id": pa.array(ids, pa.string()), "key": pa.array(keys, pa.string())})


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.parquet"))


def _replace(path: Path, write: Any) -> None:
    """Write a file under another name, to its end, and then give it its own."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
