"""The user's own queries: a file written by hand, read and checked as a whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from support.benchmark_files import draw
from support.ranking_table import RankingTable

from llama_index_multimodal_rerank import load_image_nodes
from llama_index_multimodal_rerank.evaluation import (
    BenchmarkFileError,
    evaluate,
    load_labelled_queries,
    recall_at,
)

PICTURES = ["a", "b", "c", "d"]


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines))
    return path


@pytest.fixture
def shop(tmp_path: Path) -> VectorStoreIndex:
    """Four pictures, indexed as everybody does, and a query's picture."""
    paths = [draw(tmp_path / "shop" / f"{name}.png", number) for number, name in enumerate(PICTURES)]
    draw(tmp_path / "q.png", 9)
    model = RankingTable(
        model_name="table",
        pictures=PICTURES,
        rankings={
            ("q", "in red"): ["b", "a", "c", "d"],
            ("q", ""): ["d", "c", "a", "b"],
            ("", "in red"): ["c", "a", "d", "b"],
            ("", "a mug"): ["d", "b", "a", "c"],
        },
    )
    return VectorStoreIndex(load_image_nodes(paths), embed_model=model)


def test_figures_by_hand(shop: VectorStoreIndex, tmp_path: Path) -> None:
    """Composed: b a c d, right are a and c, at 2 and 3. Text alone: d b a c, right is d, at 1.

    MRR: 1/2. nDCG: (1/log2(3) + 1/log2(4)) / (1/log2(2) + 1/log2(3)).
    Picture alone: d c a b, at 2 and 3 as well. Words alone: c a d b: at 1 and 2, better than both: the gap of
    Recall@1 is -1.
    """
    path = write(
        tmp_path,
        {"image": "q.png", "text": "in red", "relevant": ["a.png", "c.png"], "groups": ["colour"]},
        "",
        {"text": "a mug", "relevant": ["d.png"], "id": "mug"},
    )
    found = evaluate(load_labelled_queries(path), shop, model="table", show_progress=False)
    assert [(each.id_, each.asked) for each in found.results] == [("line-1", "composed"), ("mug", "text")]
    summary = found.summary()
    figures = {(row.asked, row.sides): row.figures for row in summary.means}
    assert list(figures) == [
        ("composed", "image"),
        ("composed", "text"),
        ("composed", "composed"),
        ("text", "text"),
    ]
    composed = {name: each.mean for name, each in figures["composed", "composed"].items()}
    ndcg = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert composed == {
        "Recall@1": 0,
        "Recall@5": 1,
        "Recall@10": 1,
        "MRR@10": 0.5,
        "nDCG@10": round(ndcg, 4),
    }
    assert figures["text", "text"]["Recall@1"].mean == 1
    (gap,) = summary.gaps
    assert gap.figures["Recall@1"].mean == -1
    assert gap.better["Recall@1"] == "text"
    assert found.protocol.benchmark == "queries"
    assert (found.protocol.gallery, found.protocol.gallery_size) == ("what the index holds", None)
    assert found.summary("colour").means[0].queries == 1
    with pytest.raises(ValueError, match="no query is in group 'shape'; there are 'colour'"):
        found.summary("shape")


def test_the_own_picture_is_excluded(shop: VectorStoreIndex, tmp_path: Path) -> None:
    """b a c d without b: a comes first."""
    line = {"image": "q.png", "text": "in red", "relevant": ["a.png"], "exclude": ["b.png"]}
    benchmark = load_labelled_queries(write(tmp_path, line), metrics=[recall_at(1)])
    found = evaluate(benchmark, shop, model="table", ablations=(), show_progress=False)
    assert found.results[0].lists["composed", "retrieved"].ids == ("a.png",)
    assert found.summary().means[0].figures["Recall@1"].mean == 1
    assert found.protocol.reference == "removed"


@pytest.mark.parametrize("ids", ["path", "node id", "metadata"])
def test_a_picture_has_several_names(tmp_path: Path, ids: str) -> None:
    paths = [draw(tmp_path / f"{name}.png", number) for number, name in enumerate(PICTURES)]
    nodes = load_image_nodes(paths, metadata=lambda path: {"image_id": f"product {path.stem}"})
    name = {"path": str(paths[2]), "node id": nodes[2].node_id, "metadata": "product c"}[ids]
    model = RankingTable(model_name="t", pictures=PICTURES, rankings={("", "x"): ["c"]})
    path = write(tmp_path, {"text": "x", "relevant": [name]})
    index = VectorStoreIndex(nodes, embed_model=model)
    found = evaluate(load_labelled_queries(path), index, model=model, show_progress=False)
    assert found.summary().means[0].figures["Recall@1"].mean == 1


def test_every_bad_line_is_named_at_once(tmp_path: Path) -> None:
    draw(tmp_path / "q.png", 0)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = {"text": "a mug", "relevant": ["a"]}
    path = write(
        tmp_path,
        good,
        '{"text": "a mug",',
        [1],
        {**good, "relevent": ["b"]},
        {"relevant": ["a"]},
        {"text": "a mug"},
        {"text": "a mug", "relevant": []},
        {**good, "relevant": ["a", "a"]},
        {**good, "image": "nowhere.png"},
        {**good, "image": "broken.png"},
        {**good, "id": "line-1"},
        {**good, "relevant": "a"},
    )
    with pytest.raises(BenchmarkFileError) as error:
        load_labelled_queries(path)
    lines = str(error.value).split("\n")
    assert len(lines) == 11
    for line, number, fault in zip(
        lines,
        range(2, 12),
        [
            "no JSON: Expecting property name",
            "a JSON object is expected, got list [1]",
            "the key 'relevent' is none of image, text, relevant, exclude, groups, id",
            "'image' and 'text' are both missing",
            "'relevant' is missing; there are 'text'",
            "'relevant' must be a list of one or more values, got list []",
            "'relevant' has 'a' twice",
            "'image' cannot be read",
            "'image' cannot be read",
            "the id 'line-1' is there already",
        ],
        strict=False,
    ):
        assert line.startswith(f"{path}, line {number}: {fault}"), line
    assert lines[-1] == "and 1 more"


def test_ids_are_checked_against_the_gallery(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a mug", "relevant": ["d.png", "typo"]})
    load_labelled_queries(path, gallery=["d.png", "typo"])
    with pytest.raises(
        BenchmarkFileError, match=r"line 1: 'relevant' names 'typo', which is not in the gallery"
    ):
        load_labelled_queries(path, gallery=["d.png"])


def test_right_and_excluded_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "a mug", "relevant": ["a"], "exclude": ["a"]})
    with pytest.raises(BenchmarkFileError, match="'a' is both in 'relevant' and in 'exclude'"):
        load_labelled_queries(path)


def test_files_of_other_programs(tmp_path: Path) -> None:
    """A byte order mark and Windows' line ends are no fault; another encoding is, and so is an empty file."""
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a mug", "relevant": ["a"]}\r\n\r\n')
    assert len(load_labelled_queries(path).queries) == 1
    path.write_bytes('{"text": "Stühle", "relevant": ["a"]}'.encode("latin-1"))
    with pytest.raises(BenchmarkFileError, match="is not in UTF-8"):
        load_labelled_queries(path)
    path.write_bytes(b"\n")
    with pytest.raises(BenchmarkFileError, match="has no queries"):
        load_labelled_queries(path)
    with pytest.raises(FileNotFoundError):
        load_labelled_queries(tmp_path / "nowhere.jsonl")
