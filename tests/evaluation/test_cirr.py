"""CIRR, in files of the published format: figures computed by hand, files for the server."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from support.benchmark_files import CIRR, CIRR_QUERIES, draw, write_cirr, write_json
from support.ranking_table import RankingTable

from llama_index_multimodal_rerank import load_image_nodes
from llama_index_multimodal_rerank.evaluation import (
    BenchmarkFileError,
    Evaluation,
    evaluate,
    gallery_nodes,
    load_cirr,
    write_cirr_submission,
)


def names(*numbers: int) -> list[str]:
    return [CIRR[number] for number in numbers]


CAPTIONS = [str(each["caption"]) for each in CIRR_QUERIES]
RANKINGS = {
    # composed: the reference comes first but once
    (CIRR[0], CAPTIONS[0]): names(0, 8, 1, 2, 3, 4, 5, 6, 7, 9),
    (CIRR[2], CAPTIONS[1]): names(2, 4, 0, 1, 5, 8, 3, 6, 7, 9),
    (CIRR[7], CAPTIONS[2]): names(6, 7, 0, 1, 2, 3, 4, 5, 8, 9),
    # the picture alone: the reference, then all in their order
    (CIRR[0], ""): names(0),
    (CIRR[2], ""): names(2),
    (CIRR[7], ""): names(7),
    # the text alone: all, backwards
    **{("", caption): CIRR[::-1] for caption in CAPTIONS},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_cirr(tmp_path)


def table() -> RankingTable:
    return RankingTable(model_name="table", pictures=CIRR, rankings=RANKINGS)


def index_of(folder: Path, model: RankingTable, split: Any = "val") -> VectorStoreIndex:
    return VectorStoreIndex(gallery_nodes(load_cirr(folder, split)), embed_model=model)


def means(evaluation: Evaluation, sides: str, ranking: str = "retrieved") -> dict[str, float]:
    rows = evaluation.summary().means
    (row,) = (each for each in rows if (each.sides, each.ranking) == (sides, ranking))
    return {name: figure.mean for name, figure in row.figures.items()}


THIRD, TWO_THIRDS = round(1 / 3, 4), round(2 / 3, 4)


def test_figures_by_hand(folder: Path) -> None:
    """Places of the three targets, the reference removed, in the gallery and among the five of the subset.

    composed: 8,1 -> 2; 4,0,1,5,8,3 -> 6; 6 -> 1.     Subsets: 1 -> 1; 4,5,3 -> 3; 6 -> 1.
    image:    1 -> 1; 0,1,3 -> 3; 0..6 -> 7.          Subsets: 1 -> 1; 3 -> 1; 0,1,2,3,6 -> 5.
    text:     9..1 -> 9; 9..3 -> 7; 9,8,6 -> 3.       Subsets: 5,4,3,2,1 -> 5; 7,6,5,4,3 -> 5; 6 -> 1.
    """
    model = table()
    found = evaluate(load_cirr(folder), index_of(folder, model), model=model, show_progress=False)
    assert means(found, "composed") == {
        "Recall@1": THIRD,
        "Recall@5": TWO_THIRDS,
        "Recall@10": 1.0,
        "Recall@50": 1.0,
        "Recall_subset@1": TWO_THIRDS,
        "Recall_subset@2": TWO_THIRDS,
        "Recall_subset@3": 1.0,
    }
    assert list(means(found, "image").values()) == [
        THIRD,
        TWO_THIRDS,
        1,
        1,
        TWO_THIRDS,
        TWO_THIRDS,
        TWO_THIRDS,
    ]
    assert list(means(found, "text").values()) == [0, THIRD, 1, 1, THIRD, THIRD, THIRD]
    (gap,) = found.summary().gaps
    # better alone is the picture: 1/3 - 1/3, and of the subset's first three 1 - 2/3
    assert gap.figures["Recall@1"].mean == 0
    assert gap.figures["Recall_subset@3"].mean == THIRD
    assert gap.better["Recall_subset@3"] == "image"
    assert found.results[0].lists["composed", "retrieved"].ids[:2] == (CIRR[8], CIRR[1])


def test_the_protocol_says_how(folder: Path) -> None:
    model = table()
    protocol = evaluate(
        load_cirr(folder), index_of(folder, model), model=model, show_progress=False
    ).protocol.to_dict()
    assert protocol.pop("seconds_per_query")["retrieved"] > 0
    assert protocol == {
        "benchmark": "CIRR",
        "split": "val",
        "queries": 3,
        "complete": True,
        "gallery": "all pictures of the split",
        "gallery_size": 10,
        "reference": "removed",
        "caption_join": None,
        "model": "RankingTable(table)",
        # sha256 of {"weights_sha256": "000…"}, its first 16 digits
        "fingerprint": "8afa1eaffb6049ee",
        "reranker": None,
        "rerank_depth": None,
    }


def test_a_query_with_a_subset_is_embedded_once(folder: Path) -> None:
    model = table()
    index = index_of(folder, model)
    evaluate(load_cirr(folder), index, model=model, show_progress=False)
    assert len(model.asked) == 3 * 3


class TargetFirst(BaseNodePostprocessor):
    """Puts one picture first and returns three."""

    first: str
    seen: list[list[str]]

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        self.seen.append([hit.node.metadata["image_id"] for hit in nodes])
        return sorted(nodes, key=lambda hit: hit.node.metadata["image_id"] != self.first)[:3]


def test_reranking_gets_no_reference_and_loses_no_picture(folder: Path) -> None:
    """With picture 3 first: 3,8,1 -> 3; 3 -> 1; 3,6 -> 2; and 3,1; 3; 3,6 among the subsets."""
    model = table()
    reranker = TargetFirst(first=CIRR[3], seen=[])
    found = evaluate(
        load_cirr(folder),
        index_of(folder, model),
        model=model,
        reranker=reranker,
        ablations=(),
        show_progress=False,
    )
    ids = [result.lists["composed", "reranked"].ids for result in found.results]
    assert [list(each[:4]) for each in ids] == [names(3, 8, 1, 2), names(3, 4, 0, 1), names(3, 6, 0, 1)]
    assert all(len(set(each)) == 9 for each in ids)
    assert [CIRR.index(each["reference"]) for each in CIRR_QUERIES] == [0, 2, 7]
    assert all(CIRR[0] not in seen for seen in reranker.seen[:2])
    assert means(found, "composed", "reranked")["Recall@1"] == THIRD
    assert means(found, "composed", "reranked")["Recall_subset@1"] == THIRD
    (change,) = found.summary().changes
    assert change.figures["Recall_subset@1"].mean == -THIRD  # 1/3 - 2/3
    assert found.protocol.reranker == {"reranked": "TargetFirst()"}


def test_only_the_first_are_reranked(folder: Path) -> None:
    model = table()
    reranker = TargetFirst(first=CIRR[3], seen=[])
    evaluate(
        load_cirr(folder),
        index_of(folder, model),
        model=model,
        reranker={"mine": reranker},
        rerank_depth=2,
        ablations=(),
        show_progress=False,
    )
    assert reranker.seen[0] == names(8, 1)
    assert {len(seen) for seen in reranker.seen} == {2}


def test_a_retriever_of_the_whole_gallery_does_as_well(folder: Path) -> None:
    model = table()
    index = index_of(folder, model)
    whole = evaluate(load_cirr(folder), index, model=model, show_progress=False)
    retriever = index.as_retriever(similarity_top_k=10)
    found = evaluate(load_cirr(folder), retriever, model="table", show_progress=False)
    assert found.summary() == whole.summary()
    with pytest.raises(ValueError, match=r"returns 9 pictures, CIRR needs 51.*similarity_top_k=51"):
        evaluate(load_cirr(folder), index.as_retriever(similarity_top_k=9), model="table")


def test_an_index_without_ids_in_the_metadata_finds_no_subset(folder: Path) -> None:
    """Its pictures are ranked, by their files' names; but the filter for the subset needs the metadata."""
    model = table()
    benchmark = load_cirr(folder)
    assert benchmark.gallery is not None
    index = VectorStoreIndex(load_image_nodes(benchmark.gallery.files.values()), embed_model=model)
    with pytest.raises(ValueError, match=r"query '12060': 5 pictures of its subset were not retrieved"):
        evaluate(benchmark, index, model=model, show_progress=False)


def test_half_a_run_is_not_handed_in(folder: Path, tmp_path: Path) -> None:
    class Interrupted(RankingTable):
        def _get_query_embedding(self, query: str) -> list[float]:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super()._get_query_embedding(query)

    model = Interrupted(model_name="table", pictures=CIRR, rankings=RANKINGS)
    index = index_of(folder, model)
    found = evaluate(load_cirr(folder), index, model=model, ablations=(), show_progress=False)
    assert found.protocol.queries == 2
    with pytest.raises(ValueError, match="was interrupted after 2 queries; the server wants all of them"):
        write_cirr_submission(found, tmp_path)


def test_submission_files(folder: Path, tmp_path: Path) -> None:
    """The server's rules: pair ids as keys, version and metric, 50 and 3 names without the reference."""
    write_cirr(folder, split="test1")
    model = table()
    found = evaluate(
        load_cirr(folder, "test1"), index_of(folder, model, "test1"), model=model, show_progress=False
    )
    assert len(model.asked) == 3  # without answers there is nothing to compare the sides by
    recall, subset = write_cirr_submission(found, tmp_path / "out")
    ranked = json.loads(recall.read_text())
    assert (ranked.pop("version"), ranked.pop("metric")) == ("rc2", "recall")
    assert list(ranked) == ["12060", "12062", "12081"]
    assert ranked["12060"] == names(8, 1, 2, 3, 4, 5, 6, 7, 9)  # the gallery has no 50
    among = json.loads(subset.read_text())
    assert (among.pop("version"), among.pop("metric")) == ("rc2", "recall_subset")
    assert among == {"12060": names(1, 2, 3), "12062": names(4, 5, 3), "12081": names(6, 0, 1)}
    assert "not known" in found.to_markdown()
    with pytest.raises(ValueError, match="not known"):
        found.summary()


def test_fifty_names_of_a_larger_gallery(folder: Path, tmp_path: Path) -> None:
    """60 pictures, all in their order: without the reference, number 0, the first fifty are 1 to 50."""
    many = [f"dev-{number}-0-img0" for number in range(60)]
    write_cirr(folder, CIRR_QUERIES[:1])
    write_json(folder / "image_splits" / "split.rc2.val.json", {name: f"./dev/{name}.png" for name in many})
    for number, name in enumerate(many):
        draw(folder / "img_raw" / "dev" / f"{name}.png", number)
    model = RankingTable(model_name="table", pictures=many, rankings={(CIRR[0], CAPTIONS[0]): []})
    index = index_of(folder, model)
    found = evaluate(load_cirr(folder), index, model=model, ablations=(), show_progress=False)
    recall, _ = write_cirr_submission(found, tmp_path / "out")
    assert json.loads(recall.read_text())["12060"] == many[1:51]


def changed(number: int, **values: Any) -> list[dict[str, Any]]:
    queries = copy.deepcopy(CIRR_QUERIES)
    for key, value in values.items():
        if value is None:
            del queries[number][key]
        elif key == "members":
            queries[number]["img_set"]["members"] = value
        else:
            queries[number][key] = value
    return queries


@pytest.mark.parametrize(
    ("queries", "fault"),
    [
        (changed(1, target_hard=None), "entry 2: 'target_hard' is missing; there are 'pairid', 'reference'"),
        (changed(0, pairid="12060"), "entry 1: 'pairid' must be an integer from 0 on, got str '12060'"),
        (changed(0, pairid=True), "entry 1: 'pairid' must be an integer"),
        (changed(2, pairid=12060), "entry 3: the pairid 12060 is there already"),
        (
            changed(2, reference="dev-99-0-img0"),
            "'reference' names the picture 'dev-99-0-img0', which the split",
        ),
        (changed(0, caption=" "), "entry 1: 'caption' must be a text that is not blank, got str ' '"),
        (changed(0, caption="\ud800"), "half of a surrogate pair"),
        (changed(0, img_set=[]), "entry 1: 'img_set' must be a JSON object, got list"),
        (changed(0, members=CIRR[:5]), "'members' must be a list of 6 values"),
        (changed(0, members=[*CIRR[:5], CIRR[0]]), f"'members' has '{CIRR[0]}' twice"),
        (changed(0, members=CIRR[1:7]), f"the reference '{CIRR[0]}' is not among the members"),
        (changed(0, target_hard=CIRR[9]), f"the target_hard '{CIRR[9]}' is not among the members"),
        (changed(0, target_hard=CIRR[0]), "the same picture"),
        ([*CIRR_QUERIES, 5], "entry 4: a JSON object is expected, got int 5"),
        ({"queries": 1}, "a list of JSON objects is expected"),
    ],
)
def test_malformed_entries_are_named(tmp_path: Path, queries: Any, fault: str) -> None:
    write_cirr(tmp_path, queries)
    with pytest.raises(BenchmarkFileError) as error:
        load_cirr(tmp_path)
    assert fault in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "captions" / "cap.rc2.val.json"))
    assert "Take the file from" in str(error.value)


def test_malformed_files_are_named(folder: Path) -> None:
    split = folder / "image_splits" / "split.rc2.val.json"
    split.write_text('{"a": "./dev/a.png", "a": "./dev/b.png"}')
    with pytest.raises(BenchmarkFileError, match=r"split.rc2.val.json .*'a' stands twice"):
        load_cirr(folder)
    split.write_text('{"a": ')
    with pytest.raises(BenchmarkFileError, match="no JSON in UTF-8"):
        load_cirr(folder)
    split.write_text("[]")
    with pytest.raises(BenchmarkFileError, match="an object of names and paths is expected"):
        load_cirr(folder)
    split.unlink()
    with pytest.raises(FileNotFoundError, match=r"no such file.*Take the file"):
        load_cirr(folder)


def test_missing_pictures_are_found_before_anything_is_embedded(folder: Path) -> None:
    (folder / "img_raw" / "dev" / f"{CIRR[4]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 10 pictures are missing, the first: .*{CIRR[4]}.png"):
        load_cirr(folder)


def test_pictures_may_lie_in_the_folder_itself(folder: Path) -> None:
    (folder / "img_raw" / "dev").rename(folder / "dev")
    (folder / "img_raw").rmdir()
    assert load_cirr(folder).queries[0].image == str(folder / "dev" / f"{CIRR[0]}.png")


def test_other_splits_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="split must be 'val' or 'test1', got 'train'"):
        load_cirr(folder, "train")  # type: ignore[arg-type]
