"""FashionIQ, in files of the published format: both galleries, the average, faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from support.benchmark_files import draw, fashion_names, write_fashion_iq, write_json
from support.ranking_table import RankingTable

from llama_index_multimodal_rerank.evaluation import (
    BenchmarkFileError,
    Evaluation,
    average,
    evaluate,
    gallery_nodes,
    load_fashion_iq,
)


def evaluated(folder: Path, category: Any, gallery: Any = "original", **options: Any) -> Evaluation:
    """The first query (reference 0, target 11) sees all in their order, the second its target first."""
    names = fashion_names(category)
    benchmark = load_fashion_iq(folder, category, gallery=gallery, **options)
    first, second = benchmark.queries
    model = RankingTable(
        model_name="table",
        pictures=names,
        rankings={(names[0], first.text): [], (names[1], second.text): [names[2]]},
    )
    index = VectorStoreIndex(gallery_nodes(benchmark), embed_model=model)
    return evaluate(benchmark, index, model=model, ablations=(), show_progress=False)


def recalls(found: Any) -> dict[str, float]:
    (row,) = found.means
    return {name: figure.mean for name, figure in row.figures.items()}


def test_the_original_gallery_and_the_union(tmp_path: Path) -> None:
    """Thirteen pictures: target 11 comes 12th, behind 0..10, the reference among them: a miss at 10, 1/2.

    The union has the pictures 0, 11, 1, 2 alone: 0, 1, 2, 11, the target comes 4th, 2/2. So the gallery alone
    doubles the figure.
    """
    write_fashion_iq(tmp_path, "dress")
    original, union = (evaluated(tmp_path, "dress", each) for each in ("original", "union"))
    assert recalls(original.summary()) == {"Recall@10": 0.5, "Recall@50": 1.0}
    assert recalls(union.summary()) == {"Recall@10": 1.0, "Recall@50": 1.0}
    assert [(each.protocol.gallery, each.protocol.gallery_size) for each in (original, union)] == [
        ("original", 13),
        ("union", 4),
    ]
    assert original.protocol.reference == "kept"
    assert original.protocol.caption_join == "' and '"
    assert original.results[0].lists["composed", "retrieved"].ids[0] == fashion_names("dress")[0]


def test_the_reference_is_kept(tmp_path: Path) -> None:
    """Target 10 comes 11th behind 0..9: a miss. With the reference, 0, removed it would come 10th: a hit."""
    names = fashion_names("dress")
    pair = [{"target": names[10], "candidate": names[0], "captions": ["is red", "is long"]}]
    write_fashion_iq(tmp_path, "dress", [*pair, *[{**pair[0], "candidate": names[1], "target": names[2]}]])
    assert recalls(evaluated(tmp_path, "dress").summary())["Recall@10"] == 0.5


def test_captions_are_joined(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path, "shirt")
    assert load_fashion_iq(tmp_path, "shirt").queries[0].text == "is red and has no sleeves"
    benchmark = load_fashion_iq(tmp_path, "shirt", caption_join=", ")
    assert benchmark.queries[0].text == "is red, has no sleeves"
    assert benchmark.caption_join == "', '"


def test_the_average_counts_every_category_the_same(tmp_path: Path) -> None:
    """Recall@10 of dress and shirt is 1/2 (two queries each), of toptee 1 (one query): mean 2/3, not 3/5."""
    for category in ("dress", "shirt"):
        write_fashion_iq(tmp_path, category)
    names = fashion_names("toptee")
    query = {"target": names[2], "candidate": names[1], "captions": ["is longer", "is darker"]}
    write_fashion_iq(tmp_path, "toptee", [query])
    benchmark = load_fashion_iq(tmp_path, "toptee")
    model = RankingTable(
        model_name="table", pictures=names, rankings={(names[1], benchmark.queries[0].text): [names[2]]}
    )
    index = VectorStoreIndex(gallery_nodes(benchmark), embed_model=model)
    toptee = evaluate(benchmark, index, model=model, ablations=(), show_progress=False)
    found = average([evaluated(tmp_path, "dress"), evaluated(tmp_path, "shirt"), toptee])
    assert recalls(found) == {"Recall@10": round(2 / 3, 4), "Recall@50": 1.0}
    (row,) = found.means
    assert row.queries == 5
    assert row.figures["Recall@10"].low < 2 / 3 < row.figures["Recall@10"].high


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"captions": ["one"]}, "entry 2: 'captions' must be a list of 2 values, got list ['one']"),
        ({"captions": "is red"}, "'captions' must be a list of 2 values, got str 'is red'"),
        ({"captions": ["is red", ""]}, "'captions'[1] must be a text that is not blank, got str ''"),
        (
            {"target": "B000000000"},
            "'target' names the picture 'B000000000', which the split file does not have",
        ),
        ({"candidate": 5}, "'candidate' must be a text that is not blank, got int 5"),
    ],
)
def test_malformed_entries_are_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    path = write_fashion_iq(tmp_path, "dress") / "captions" / "cap.dress.val.json"
    queries = json.loads(path.read_text())
    queries[1] |= change
    write_json(path, queries)
    with pytest.raises(BenchmarkFileError) as error:
        load_fashion_iq(tmp_path, "dress")
    assert str(error.value).startswith(f"{path}, entry 2: ")
    assert fault in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_fashion_iq(tmp_path, "dress")
    (tmp_path / "images" / f"{fashion_names('dress')[5]}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 13 pictures are missing.*images="):
        load_fashion_iq(tmp_path, "dress")
    load_fashion_iq(tmp_path, "dress", gallery="union")  # which does not have it
    write_json(tmp_path / "image_splits" / "split.dress.val.json", {"a": 1})
    with pytest.raises(BenchmarkFileError, match="a list of names is expected, got dict"):
        load_fashion_iq(tmp_path, "dress")


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png", 0)
    with pytest.raises(ValueError, match="category must be one of dress, shirt, toptee, got 'shoe'"):
        load_fashion_iq(tmp_path, "shoe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gallery must be 'original' or 'union', got 'all'"):
        load_fashion_iq(tmp_path, "dress", gallery="all")  # type: ignore[arg-type]
