"""What of indexing needs no Ray: what is refused before work begins, lists, rows, Parquet files."""

from __future__ import annotations

import doctest
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction
from PIL import Image
from support.drawing import draw, draw_picture
from support.ray_doubles import DIM, PixelEmbedding, write_pictures

from llama_index_multimodal_rerank import (
    ListedImage,
    MilvusServer,
    ParquetFolder,
    image_node,
    index_with_ray,
    load_image_nodes,
    milvus_store,
)
from llama_index_multimodal_rerank.data import listed_image
from llama_index_multimodal_rerank.data.amazon_reviews import (
    amazon_nodes,
    list_amazon_images,
    read_amazon_items,
)
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.indexing.items import Item, content_key, list_items
from llama_index_multimodal_rerank.indexing.parquet_folder import drop_superseded, read_rows, to_table
from llama_index_multimodal_rerank.indexing.rows import store_row
from llama_index_multimodal_rerank.indexing.stages import EmbedImages, ReadImages, WriteRows


def test_the_example_runs() -> None:
    found = doctest.testmod(listed_image)
    assert (found.failed, found.attempted) == (0, 2)


def test_milvus_lite_is_refused_before_work_begins(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Milvus Lite serves one process.*ParquetFolder"):
        MilvusServer(str(tmp_path / "shop.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MilvusServer("shop"), "uri must be"),
        (lambda: MilvusServer("http://localhost:1", batch_rows=0), "batch_rows must be from 1"),
        (
            lambda: MilvusServer("http://localhost:1", sparse_embedding_function=BM25BuiltInFunction()),
            "dense vectors alone",
        ),
        (lambda: ParquetFolder("rows", rows_per_file=0), "at least 1, got 0"),
        (lambda: index_with_ray(".", PixelEmbedding(), ParquetFolder("rows"), actors=0), "actors must be"),
        (
            lambda: index_with_ray(".", PixelEmbedding(), ParquetFolder("rows"), batch_size=0),
            "batch_size must",
        ),
        (
            lambda: index_with_ray(".", PixelEmbedding(), ParquetFolder("rows"), num_gpus=-1),
            "num_gpus must be from 0 .*, got -1",
        ),
        (
            lambda: index_with_ray(".", PixelEmbedding(), ParquetFolder("rows"), num_cpus=-0.5),
            "num_cpus must be from 0 .*, got -0.5",
        ),
        (
            lambda: index_with_ray(
                ".", PixelEmbedding(), ParquetFolder("rows"), metadata={"price": float("nan")}
            ),
            r"metadata\['price'\] is nan",
        ),
        (lambda: MilvusServer("http://localhost:1", batch_size=9), "batch_rows here, got batch_size=9"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"llama-index-multimodal-rerank\[ray\]"):
        index_with_ray(tmp_path, PixelEmbedding(), ParquetFolder(tmp_path / "rows"))
    assert list(tmp_path.iterdir()) == []


def items(source: Any, **options: Any) -> list[Item]:
    return [*list_items(source, **{"recursive": True, "glob": None, **options})]


def test_a_list_has_the_ids_of_nodes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 4, 0)
    paths = sorted((tmp_path / "pictures").iterdir())
    ids = [image_node(path).node_id for path in paths]
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*paths, paths[0]])) + "\n\n")
    for source in (
        tmp_path / "pictures",
        tmp_path / "list.txt",
        paths,
        [ListedImage(path) for path in paths],
    ):
        assert [item.id_ for item in items(source)] == ids
    assert [item.id_ for item in items(tmp_path / "pictures", glob="*3.png")] == ids[3:]


def test_names_that_are_no_utf8_travel(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"/pictures/caf\xe9.png\n")
    (item,) = items(tmp_path / "list.txt")
    line = item.to_json()
    assert line.isascii()
    assert Item.from_json(line) == item
    assert item.image == "/pictures/caf\udce9.png"


@pytest.mark.parametrize("name", ["reviews.jsonl", "reviews.jsonl.gz", "pictures.zip"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"source must be a folder.*list_amazon_images"):
        items(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        items(tmp_path / "nowhere")


def test_two_pictures_of_one_id_are_refused() -> None:
    same = ListedImage("/a.png", "a mug", {"price": 2}, "one")
    assert len(items([same, same])) == 1
    with pytest.raises(ValueError, match=r"two different pictures have one id.*'/b.png'"):
        items([same, ListedImage("/b.png", id_="one")])
    with pytest.raises(ValueError, match="path or URL"):
        items([b"\x89PNG"])


def test_an_empty_id_is_none() -> None:
    (item,) = items([ListedImage("/a.png", id_="")])
    assert item.id_ == items(["/a.png"])[0].id_


def test_a_row_of_parquet_that_names_no_picture_does_not_end_the_run(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from llama_index_multimodal_rerank.indexing.listed_parquet import _to_items

    images = ["data:image/png;base64,aGFsbG8=", "~$scan.jpg", "~nobody_here/scan.jpg", "scan.jpg"]
    lines = _to_items(pa.table({"image": images}), tmp_path)["item"].to_pylist()
    data, *others = [Item.from_json(line) for line in lines]
    assert "listed by its path or URL, got 'data:image/png" in str(data.problem)
    assert [(item.image, item.problem) for item in others] == [
        (str(tmp_path / name), None) for name in images[1:]
    ]


def test_amazon_lines_are_listed_as_their_nodes(tmp_path: Path) -> None:
    variants = {"MAIN": "", "PT01": "b"}
    lines = [
        {
            "parent_asin": f"B{i}",
            "title": f"mug {i}",
            "price": 1.5 + i,
            "images": [
                {"large": f"https://a.example/{i}{end}.jpg", "variant": variant}
                for variant, end in variants.items()
            ],
        }
        for i in range(3)
    ]
    path = tmp_path / "meta.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    for images in ("main", "all"):
        nodes = amazon_nodes(read_amazon_items(path), images=images, text=lambda record: record.parent_asin)
        listed = items(
            list_amazon_images(read_amazon_items(path), images=images, text=lambda record: record.parent_asin)
        )
        assert [(item.id_, item.image, item.text) for item in listed] == [
            (node.node_id, node.image_url, node.text) for node in nodes
        ]
        for item, node in zip(listed, nodes, strict=True):
            assert {**item.metadata, "image_digest": node.metadata["image_digest"]} == node.metadata
    file = tmp_path / "0.jpg"
    listed = items(list_amazon_images(read_amazon_items(path), files={"https://a.example/0.jpg": file}))
    assert [item.image for item in listed] == [
        str(file),
        "https://a.example/1.jpg",
        "https://a.example/2.jpg",
    ]


def test_the_row_is_the_store_s_own(tmp_path: Path) -> None:
    """What the store sends to its client, all but the vector: a release may change it."""
    write_pictures(tmp_path / "pictures", 1, 0)
    model = PixelEmbedding()
    (node,) = model(load_image_nodes(tmp_path / "pictures", text=lambda path: "mug", metadata={"price": 1.5}))
    store = milvus_store(tmp_path / "a.db", model)
    sent: list[dict[str, Any]] = []
    send = store.client.upsert

    def upsert(collection_name: str, data: list[dict[str, Any]], **options: Any) -> Any:
        sent.extend(map(dict, data))
        return send(collection_name, data, **options)

    store.client.upsert = upsert
    store.add([node])
    ours = store_row(node, {"text_key": "text", "embedding_field": "embedding", "doc_id_field": "doc_id"})
    assert {**ours, "embedding": node.embedding} == sent[0]
    assert {"id", "doc_id", "text", "_node_content", "_node_type", "price"} <= ours.keys()


def test_the_columns_are_those_of_pymilvus_own_files(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    try:
        from pymilvus.bulk_writer import BulkFileType, LocalBulkWriter
    except ImportError as error:
        pytest.skip(f'pip install "pymilvus[bulk_writer]" ({error})')
    from pymilvus import CollectionSchema

    write_pictures(tmp_path / "pictures", 3, 0)
    model = PixelEmbedding()
    nodes = model(load_image_nodes(tmp_path / "pictures", metadata={"price": 1.5}))
    rows = [{**store_row(node, {}), "embedding": node.embedding} for node in nodes]
    store = milvus_store(tmp_path / "a.db", model)
    schema = CollectionSchema.construct_from_dict(store.client.describe_collection("images"))
    with LocalBulkWriter(schema, str(tmp_path / "theirs"), file_type=BulkFileType.PARQUET) as writer:
        for row in rows:
            writer.append_row(row)
        writer.commit()
        theirs = parquet.read_table(writer.batch_files[0][0])
    ours = to_table(rows, DIM)
    assert {*ours.schema.names} == {*theirs.schema.names}
    for name in ours.schema.names:
        assert ours.schema.field(name).type == theirs.schema.field(name).type, name
        if name == "$meta":
            assert [*map(json.loads, ours[name].to_pylist())] == [*map(json.loads, theirs[name].to_pylist())]
        else:
            assert ours[name].to_pylist() == theirs[name].to_pylist()


def row(id_: str, price: float) -> dict[str, Any]:
    return {"id": id_, "doc_id": id_, "text": "", "embedding": [price] * 2, "price": price}


def test_of_two_rows_of_one_id_the_later_run_s_stays(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    files = {
        "rows-000001-a": [row("a", 1), row("b", 1)],
        "rows-000001-b": [row("c", 1)],
        "rows-000002-a": [row("b", 2), row("c", 2)],
        "rows-000010-a": [row("c", 10)],
    }
    for name, rows in files.items():
        parquet.write_table(to_table(rows, 2), tmp_path / f"{name}.parquet")
    drop_superseded(tmp_path)
    left = {row["id"]: row["price"] for rows in read_rows(tmp_path) for row in rows}
    assert left == {"a": 1, "b": 2, "c": 10}
    assert sum(len(rows) for rows in read_rows(tmp_path)) == 3
    assert len([*tmp_path.iterdir()]) == 3  # one had nothing left
    with pytest.raises(ValueError, match="row 'a' has 2 dimensions, not 3"):
        to_table(files["rows-000001-a"], 3)


def test_content_is_told_by_text_digest_and_metadata_alone() -> None:
    metadata = {"image_digest": "sha256:0", "price": 1.5, "file_path": "/a.png", "image_width": 3}
    key = content_key("mug", metadata)
    assert key == content_key("mug", {**dict(reversed(metadata.items())), "image_width": 4})
    for changed in ({"image_digest": "sha256:1"}, {"price": 2}, {"file_path": "/b.png"}, {"more": None}):
        assert key != content_key("mug", {**metadata, **changed})
    assert key != content_key("cup", metadata)


class Nowhere:
    """A target in which there is nothing, or what a dictionary says."""

    columns = {"text_key": "text", "embedding_field": "embedding", "doc_id_field": "doc_id"}  # noqa: RUF012
    batch_rows = 10

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def stored(self, ids: Sequence[str]) -> dict[str, str]:
        return {}

    def write(self, rows: list[dict[str, Any]]) -> None:
        self.rows.extend(rows)

    def close(self) -> None:
        raise AssertionError


def run_stages(source: Any, model: PixelEmbedding) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows written and what became of each picture, without Ray between the stages."""
    pa = pytest.importorskip("pyarrow")
    target = Nowhere()
    access = ImageAccess(model.allow_urls, model.data_root)
    read = ReadImages(target, access, model.apply_exif_orientation, None, None)
    batch = pa.table({"item": [item.to_json() for item in items(source)]})
    outcomes = WriteRows(target)(EmbedImages(model)(read(batch))).to_pylist()
    return target.rows, outcomes


@pytest.mark.parametrize("upright", [False, True])
def test_vectors_of_any_kind_of_picture_are_those_of_one_process(tmp_path: Path, upright: bool) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    turned = Image.Exif()
    turned[0x112] = 6
    picture = draw_picture(1, (60, 40))
    for name in ("jpg", "tiff", "png", "webp"):
        picture.save(folder / f"turned.{name}", exif=turned)
    draw_picture(2, (1300, 900)).save(folder / "large.jpg", exif=turned)
    draw("palette").save(folder / "palette.png", transparency=3)
    draw("transparent").save(folder / "transparent.png")
    draw("gray").convert("I;16").save(folder / "deep.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    model = PixelEmbedding(apply_exif_orientation=upright)
    expected = {node.node_id: node.embedding for node in model(load_image_nodes(folder))}
    rows, outcomes = run_stages(folder, model)
    assert [outcome["outcome"] for outcome in outcomes] == ["written"] * 9
    assert {row["id"] for row in rows} == expected.keys()
    for row in rows:
        assert row["embedding"] == pytest.approx(expected[row["id"]], abs=1e-6), row["file_name"]


def test_what_may_be_read_is_as_the_embedding_says(tmp_path: Path) -> None:
    write_pictures(tmp_path / "inside", 1, 0)
    write_pictures(tmp_path / "outside", 1, 0)
    (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "outside" / "00000.png")
    source = [tmp_path / "inside", tmp_path / "outside"]
    paths = [path for folder in source for path in sorted(folder.iterdir())]
    model = PixelEmbedding(data_root=str(tmp_path / "inside"), allow_urls=["127.0.0.1:9"])
    rows, outcomes = run_stages([*paths, "http://10.0.0.1/a.png", "http://127.0.0.1:9/a.png"], model)
    assert [row["file_name"] for row in rows] == ["00000.png"]
    assert [outcome["outcome"] for outcome in outcomes] == ["written"] + ["skipped"] * 4
    reasons = [outcome["reason"] for outcome in outcomes]
    assert "outside of data_root" in reasons[1]
    assert "outside of data_root" in reasons[2]
    assert "allow_urls" in reasons[3]
    assert reasons[4]
