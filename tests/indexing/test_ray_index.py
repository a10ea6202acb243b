"""index_with_ray on a real Ray of this machine, into Parquet files."""

from __future__ import annotations

import doctest
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import BaseNode
from PIL import Image

pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')

from support.ray_behaviour import check_killed_runs, expected_vectors, key_of
from support.ray_doubles import DIM, PixelEmbedding, write_pictures

from llama_index_multimodal_rerank import (
    EmbeddingMismatchError,
    ListedImage,
    ParquetFolder,
    index_with_ray,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.indexing import ray_index
from llama_index_multimodal_rerank.indexing.parquet_folder import read_rows
from llama_index_multimodal_rerank.indexing.targets import EmbeddingFacts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


def test_the_example_runs() -> None:
    found = doctest.testmod(ray_index)
    assert (found.failed, found.attempted > 10) == (0, True)


def all_rows(folder: Path) -> Iterator[dict[str, Any]]:
    return (row for rows in read_rows(folder) for row in rows)


def test_rows_are_those_of_the_store_and_a_second_run_embeds_what_changed(tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "rows"
    cut = write_pictures(pictures, 40, 2)
    Image.open(pictures / "00003.png").resize((1100, 1000)).save(pictures / "large.png")
    (pictures / "notes.txt").write_text("to be sorted")
    captions = {"00001": "a mug", "00002": "a cup"}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    readers = tmp_path / "readers"

    def caption(path: Path) -> str:
        import os

        with readers.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return json.loads((tmp_path / "captions.json").read_text()).get(path.stem, "")

    def price(path: Path) -> dict[str, Any]:
        return {"price": len(path.stem) + 0.5, "empty": None}

    model = PixelEmbedding(journal=str(tmp_path / "journal"))

    def index() -> Any:
        return index_with_ray(
            pictures, model, ParquetFolder(out, rows_per_file=15), text=caption, metadata=price,
            actors=2, batch_size=8, report=tmp_path / "bad.jsonl",
        )  # fmt: skip

    first = index()

    assert (first.written, first.kept) == (39, 0)
    assert sorted(Path(path).name for path, _ in first.skipped) == [*(p.name for p in cut), "notes.txt"]
    report = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(line["image"] for line in report) == sorted(path for path, _ in first.skipped)
    assert all(line["reason"] and line["id"] for line in report)
    # A stage of its own: who reads does not embed.
    read_by = {int(line) for line in readers.read_text().split()}
    assert read_by
    assert not read_by & set(model.processes)

    # As the store itself writes them: the same nodes from both.
    single = PixelEmbedding()
    nodes = single(load_image_nodes(pictures, text=caption, metadata=price, on_error="skip"))
    written_by_store = milvus_store(tmp_path / "a.db", single, collection_name="by_store")
    written_by_store.add(nodes)
    inserted = milvus_store(tmp_path / "a.db", single, collection_name="inserted")
    for rows in read_rows(out):
        inserted.client.upsert(inserted.collection_name, rows)
    ids = [node.node_id for node in nodes]

    def by_id(found: list[BaseNode]) -> dict[str, tuple[str, list[float]]]:
        return {node.node_id: (node.to_json(), node.embedding) for node in found}

    theirs, ours = by_id(written_by_store.get_nodes(ids)), by_id(inserted.get_nodes(ids))
    assert ours.keys() == theirs.keys() == set(ids)
    for id_ in ids:
        assert _without_vector(ours[id_][0]) == _without_vector(theirs[id_][0])
        assert np.abs(np.subtract(ours[id_][1], theirs[id_][1])).max() < 1e-5
    assert {*written_by_store.client.query("by_store", "id != ''", ["*"], limit=1)[0]} == {
        *inserted.client.query("inserted", "id != ''", ["*"], limit=1)[0]
    }

    # What changed is embedded again, and replaced: a picture, a caption. What was added, too.
    embedded = len(model.embedded)
    Image.open(pictures / "00005.png").rotate(180).save(pictures / "00006.png")
    (tmp_path / "captions.json").write_text(json.dumps({**captions, "00002": "a jug"}))
    Image.open(pictures / "00007.png").rotate(180).save(pictures / "new.png")
    second = index()

    assert (second.written, second.kept) == (3, 37)
    assert len(model.embedded) - embedded == 3
    rows = [*all_rows(out)]
    assert len(rows) == len({row["id"] for row in rows}) == 40
    expected = single(load_image_nodes(pictures, text=caption, metadata=price, on_error="skip"))
    assert {row["id"]: key_of(row["embedding"]) for row in rows} == {
        node.node_id: key_of(node.embedding) for node in expected
    }
    assert "40 rows" in (out / "how_to_import.txt").read_text()

    with pytest.raises(EmbeddingMismatchError, match="version: collection '1', embed_model '2'"):
        index_with_ray(pictures, PixelEmbedding(version="2"), ParquetFolder(out))


def _without_vector(node: str) -> dict[str, Any]:
    return {**json.loads(node), "embedding": None}


def test_a_killed_driver_and_a_killed_worker(tmp_path: Path) -> None:
    out = tmp_path / "rows"
    check_killed_runs(
        tmp_path, {"folder": str(out), "rows_per_file": 20}, lambda: all_rows(out), count=300, bad=12
    )


@pytest.mark.parametrize("kind", ["paths", "parquet", "listed"])
def test_every_kind_of_list(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures, out = tmp_path / "pictures", tmp_path / "rows"
    write_pictures(pictures, 6, 0)
    paths = sorted(pictures.iterdir())
    source: Any
    if kind == "paths":
        source = tmp_path / "list.txt"
        source.write_text("\n".join([*map(str, paths), str(pictures / "gone.png"), "", str(paths[0])]))
    elif kind == "parquet":
        source = tmp_path / "list.parquet"
        columns = {
            "image": [*map(str, paths), "http://127.0.0.1:9/x.png"],
            "price": [1.5, None, 2.5, 3, 4, 5, 6],
        }
        pq.write_table(pa.table({**columns, "text": ["a", None, *"bcdef"]}), source)
    else:
        source = [
            *(ListedImage(path, "a", {"price": 1.5}, path.stem) for path in paths),
            pictures / "gone.png",
        ]
    result = index_with_ray(source, PixelEmbedding(), ParquetFolder(out))

    assert result.written == 6
    assert len(result.skipped) == 1
    rows = {json.loads(row["_node_content"])["image_path"]: row for row in all_rows(out)}
    assert rows.keys() == {*map(str, paths)}
    row = rows[str(paths[0])]
    if kind == "paths":
        expected = expected_vectors(pictures)
        assert {row["id"]: key_of(row["embedding"]) for row in rows.values()} == {
            id_: key_of(vector) for id_, vector in expected.items()
        }
        assert result.skipped[0] == (str(pictures / "gone.png"), "no such file")
    elif kind == "parquet":
        assert (row["text"], row["price"]) == ("a", 1.5)
        assert (rows[str(paths[1])]["text"], rows[str(paths[1])].get("price")) == ("", None)
        assert "URL" in result.skipped[0].reason
    else:
        assert (row["id"], row["text"], row["price"]) == (paths[0].stem, "a", 1.5)


def test_what_milvus_cannot_keep_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 3, 0)
    first, second, third = sorted((tmp_path / "pictures").iterdir())
    listed = [
        ListedImage(first, "ä" * 40_000),
        ListedImage(second, metadata={"price": float("nan")}),
        ListedImage(third, metadata={"note": "n" * 40_000}),
    ]
    result = index_with_ray(listed, PixelEmbedding(), ParquetFolder(tmp_path / "rows"))
    assert result.written == 0
    assert {Path(path).name: reason.partition(",")[0] for path, reason in result.skipped} == {
        first.name: "text has 80000 bytes in Milvus",
        second.name: "metadata['price'] is nan",
        third.name: next(reason for path, reason in result.skipped if path == str(third)).partition(",")[0],
    }
    assert "metadata has 8" in next(reason for path, reason in result.skipped if path == str(third))


def test_actors_must_leave_a_cpu(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1, 0)
    with pytest.raises(ValueError, match="4 of the 4 CPUs"):
        index_with_ray(tmp_path / "pictures", PixelEmbedding(), ParquetFolder(tmp_path / "rows"), actors=4)
    assert not (tmp_path / "rows").exists()


def test_gpus_that_are_not_there_are_not_waited_for(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1, 0)
    with pytest.raises(ValueError, match=r"actors \* num_gpus is 1, and Ray has 0 GPUs here"):
        index_with_ray(
            tmp_path / "pictures", PixelEmbedding(), ParquetFolder(tmp_path / "rows"), actors=2, num_gpus=0.5
        )
    assert not (tmp_path / "rows").exists()


def test_a_report_that_cannot_be_written_is_an_error_before_work_begins(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1, 0)
    rows, report = ParquetFolder(tmp_path / "rows"), tmp_path / "reports" / "left_out.jsonl"
    with pytest.raises(FileNotFoundError, match=r"left_out\.jsonl"):
        index_with_ray(tmp_path / "pictures", PixelEmbedding(), rows, report=report)
    assert not (tmp_path / "rows").exists()


def test_metadata_of_urls(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1, 0)
    (path,) = (tmp_path / "pictures").iterdir()
    options: dict[str, Any]
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        model = PixelEmbedding(allow_urls=["127.0.0.1"])
        for options in ({"text": str}, {"metadata": lambda path: {"name": path.name}}):
            with pytest.raises(ValueError, match=r"and 'http://.*' is a URL: .*ListedImage\(url"):
                index_with_ray([path, url], model, ParquetFolder(tmp_path / "rows"), **options)
        assert not (tmp_path / "rows").exists()
        for _ in range(2):
            result = index_with_ray(
                [path, url], model, ParquetFolder(tmp_path / "rows"), metadata={"shop": "a"}
            )
        assert (result.written, result.kept) == (0, 2)
        server.shutdown()
    assert [row["shop"] for row in all_rows(tmp_path / "rows")] == ["a", "a"]


def test_files_that_are_not_its_own_are_left_alone(tmp_path: Path) -> None:
    folder, facts = tmp_path / "rows", EmbeddingFacts(DIM, {"model": "double"})
    folder.mkdir()
    theirs = folder / "film.mkv.partial"
    theirs.write_bytes(b"of a download")
    left = folder / f"rows-000001-{'0' * 16}.parquet.{'a' * 32}.partial"
    left.write_bytes(b"of a killed worker")
    ParquetFolder(folder).open(facts)
    assert (theirs.exists(), left.exists()) == (True, False)
    (folder / "rows-of-mine.parquet").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"rows-of-mine\.parquet.* Choose an empty folder"):
        ParquetFolder(folder).open(facts)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"path": ["a.png"]}, {}, "must have a column 'image'"),
        ({"image": [b"\x89PNG"]}, {}, "'image' must be of strings, and is binary"),
        ({"image": ["a.png", None]}, {}, "1 rows have no 'image'"),
        ({"image": ["a.png", "a.png"]}, {}, "'image' stand in more than one row, the first is 'a.png'"),
        ({"image": ["a.png", "b.png"], "id": ["1", "1"]}, {}, "'id' stand in more than one row"),
        ({"image": ["a.png"]}, {"text": str}, "a Parquet source has its own"),
        ({"image": ["a.png"]}, {"glob": "*.png"}, "for folders of pictures"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_before_work_begins(
    tmp_path: Path, columns: dict[str, list[Any]], options: dict[str, Any], message: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    with pytest.raises(ValueError, match=message):
        index_with_ray(
            tmp_path / "list.parquet", PixelEmbedding(), ParquetFolder(tmp_path / "rows"), **options
        )
    assert not (tmp_path / "rows").exists()


def test_a_list_without_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "list.txt").write_text("\n")
    report = tmp_path / "left_out.jsonl"
    report.write_text("of an earlier run")
    result = index_with_ray(
        tmp_path / "list.txt", PixelEmbedding(), ParquetFolder(tmp_path / "rows"), report=report
    )
    assert report.read_text() == ""
    assert (result.written, result.kept, result.skipped) == (0, 0, [])
    assert "No picture was found" in caplog.text
    with pytest.raises(ValueError, match="a ListedImage has its own"):
        index_with_ray([ListedImage("a.png")], PixelEmbedding(), ParquetFolder(tmp_path / "rows"), text=str)
