"""CIRCO, in files of the published format: mAP by hand, the file for the server, faults."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from support.benchmark_files import CIRCO, CIRCO_QUERIES, write_circo, write_json
from support.ranking_table import RankingTable

from llama_index_multimodal_rerank.evaluation import (
    BenchmarkFileError,
    Evaluation,
    evaluate,
    gallery_nodes,
    load_circo,
    write_circo_submission,
)

NAMES = [f"{id_:012}" for id_ in CIRCO]


def stems(*ids: int) -> list[str]:
    return [f"{id_:012}" for id_ in ids]


RANKINGS = {
    # right: 9761, 489535, 57541
    (stems(85932)[0], "is held by a little girl on a chair"): stems(489535, 85932, 9761, 243611, 7, 57541),
    # right: 80 (the target), 9761, 489535, 57541, 375057, 119881
    (stems(901)[0], "has two of them"): stems(9761, 489535, 57541, 375057, 119881, 7, 80, 901),
}


def evaluated(folder: Path, split: Any = "val") -> Evaluation:
    model = RankingTable(model_name="table", pictures=NAMES, rankings=RANKINGS)
    benchmark = load_circo(folder, split)
    index = VectorStoreIndex(gallery_nodes(benchmark), embed_model=model)
    return evaluate(benchmark, index, model=model, ablations=(), show_progress=False)


def test_figures_by_hand(tmp_path: Path) -> None:
    """Right ones of query 0 (3 of them) at places 1, 3, 6; of query 1 (6 of them) at 1 to 5 and 7.

    AP@5:  (1/1 + 2/3) / 3 = 0.5556;        (1 + 1 + 1 + 1 + 1) / min(6, 5) = 1
    AP@10: (1/1 + 2/3 + 3/6) / 3 = 0.7222;  (5 + 6/7) / 6 = 0.9762
    The targets come at 3 and 7: Recall@5 is 1/2, Recall@10 is 1. The reference, place 2 of query 0, is kept.
    """
    found = evaluated(write_circo(tmp_path))
    (row,) = found.summary().means
    assert {name: figure.mean for name, figure in row.figures.items()} == {
        "mAP@5": round((5 / 9 + 1) / 2, 4),
        "mAP@10": round((13 / 18 + 41 / 42) / 2, 4),
        "mAP@25": round((13 / 18 + 41 / 42) / 2, 4),
        "mAP@50": round((13 / 18 + 41 / 42) / 2, 4),
        "Recall@5": 0.5,
        "Recall@10": 1.0,
        "Recall@25": 1.0,
        "Recall@50": 1.0,
    }
    assert found.protocol.reference == "kept"
    assert found.protocol.gallery_size == 12
    assert found.protocol.caption_join == "'{relative_caption}'"
    assert found.groups == ("addition", "viewpoint", "cardinality")
    assert found.summary("cardinality").means[0].figures["mAP@5"].mean == 1


def test_submission_file(tmp_path: Path) -> None:
    """The server's rules: query ids as keys, whole numbers in the lists, none twice, no other keys."""
    found = evaluated(write_circo(tmp_path, split="test"), "test")
    path = write_circo_submission(found, tmp_path / "out" / "circo.json")
    content = json.loads(path.read_text())
    assert list(content) == ["0", "1"]
    assert content["0"][:6] == [489535, 85932, 9761, 243611, 7, 57541]
    assert all(sorted(ids) == sorted(CIRCO) for ids in content.values())  # the gallery has no 50


def test_the_shared_concept_is_asked_for_by_request(tmp_path: Path) -> None:
    write_circo(tmp_path)
    benchmark = load_circo(tmp_path, caption="find {shared_concept} but {relative_caption}")
    assert benchmark.queries[0].text == "find a teddy bear but is held by a little girl on a chair"
    for wrong in (
        "{caption}",
        "{relative_caption",
        "nothing",
        "{relative_caption.x}",
        "{}",
        "{relative_caption:{x}}",
    ):
        with pytest.raises(ValueError, match="caption must be made of"):
            load_circo(tmp_path, caption=wrong)


def test_the_gallery_may_be_a_listing(tmp_path: Path) -> None:
    write_circo(tmp_path)
    by_file = load_circo(tmp_path).gallery
    info = tmp_path / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    info.unlink()
    listed = load_circo(tmp_path).gallery
    assert by_file is not None
    assert listed is not None
    assert dict(listed.files) == dict(by_file.files)
    (tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "cover.jpg").write_bytes(b"")
    with pytest.raises(BenchmarkFileError, match=r"names must be numbers, as COCO's are, got 'cover.jpg'"):
        load_circo(tmp_path)
    with pytest.raises(FileNotFoundError, match="no pictures"):
        load_circo(tmp_path, images=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": 0}, "entry 2: the id 0 is there already"),
        ({"id": "1"}, "'id' must be an integer from 0 on, got str '1'"),
        ({"reference_img_id": 3}, "'reference_img_id' names the picture 3, which the gallery does not have"),
        ({"gt_img_ids": []}, "'gt_img_ids' must be a list of one or more values, got list []"),
        ({"gt_img_ids": [80, 80]}, "'gt_img_ids' has '80' twice"),
        ({"gt_img_ids": [80, 3]}, "'gt_img_ids' names the picture 3"),
        ({"gt_img_ids": [7]}, "the target_img_id 80 is not among the gt_img_ids"),
        ({"shared_concept": None}, "'shared_concept' must be a text that is not blank, got NoneType None"),
        ({"semantic_aspects": "addition"}, "'semantic_aspects' must be a list"),
    ],
)
def test_malformed_entries_are_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    queries = copy.deepcopy(CIRCO_QUERIES)
    queries[1] |= change
    write_circo(tmp_path, queries)
    with pytest.raises(BenchmarkFileError) as error:
        load_circo(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'annotations' / 'val.json'}, entry 2: ")
    assert fault in str(error.value)


def test_doubles_in_the_list_of_pictures_are_named(tmp_path: Path) -> None:
    write_circo(tmp_path)
    info = tmp_path / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    write_json(info, {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}]})
    with pytest.raises(BenchmarkFileError, match="entry 2: the image id 7 is there already"):
        load_circo(tmp_path)
    write_json(info, {"pictures": []})
    with pytest.raises(BenchmarkFileError, match="'images' is missing; there are 'pictures'"):
        load_circo(tmp_path)


def test_old_files_without_semantic_aspects(tmp_path: Path) -> None:
    queries = [{key: each[key] for key in each if key != "semantic_aspects"} for each in CIRCO_QUERIES]
    assert load_circo(write_circo(tmp_path, queries)).queries[0].groups == ()
