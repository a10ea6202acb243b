"""Running an evaluation: interrupted, with doubles, with too little, with other models."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from PIL import Image
from support.benchmark_files import write_cirr

from llama_index_multimodal_rerank.evaluation import (
    Benchmark,
    BenchmarkQuery,
    Evaluation,
    Gallery,
    average,
    evaluate,
    load_cirr,
    ndcg_at,
    protocol_table,
    recall_at,
    write_circo_submission,
    write_cirr_submission,
)

IDS = ("a", "b", "c")


class Fixed(BaseRetriever):
    """Returns the same pictures for every query; stops at one as Ctrl-C does."""

    def __init__(self, ids: Sequence[str] = IDS, stop_at: int | None = None) -> None:
        self.ids, self.stop_at, self.asked = ids, stop_at, []  # type: ignore[var-annotated]
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle)
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        return [
            NodeWithScore(node=TextNode(text=str(place), metadata={"image_id": id_}), score=-place)
            for place, id_ in enumerate(self.ids)
        ]


def benchmark(count: int = 4, depth: int = 2, **options: Any) -> Benchmark:
    queries = tuple(BenchmarkQuery(f"q{number}", text="words", relevant=("a",)) for number in range(count))
    gallery = Gallery("all", frozenset(IDS))
    return Benchmark("mine", "all", queries, (recall_at(depth),), gallery, **options)


def run(ids: Sequence[str] = IDS, **options: Any) -> Evaluation:
    return evaluate(benchmark(), Fixed(ids), model="none", show_progress=False, **options)


def test_interrupted_it_gives_what_there_is(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    found = evaluate(benchmark(), Fixed(stop_at=3), model="none", show_progress=False)
    assert [result.id_ for result in found.results] == ["q0", "q1"]
    assert found.summary().means[0].figures["Recall@2"].mean == 1
    assert not found.protocol.complete
    assert found.protocol.queries == 2
    assert "Interrupted after 2 of 4 queries" in caplog.text
    assert "| complete | no |" in found.to_markdown()


def test_interrupted_before_the_first_it_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(benchmark(), Fixed(stop_at=1), model="none", show_progress=False)


def test_it_says_how_long_it_will_take(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        evaluate(benchmark(count=8), Fixed(), model="none")
    assert "5 of 8 queries took" in caplog.text
    shown = capsys.readouterr()
    assert "all will take about 0 seconds" in shown.err
    assert "8/8" in shown.err
    assert shown.out == ""


def test_a_picture_twice_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"query 'q0': the picture 'a' is in the list of the retriever .*\[1, 2\]"
    ):
        run(("a", "a", "b"))


def test_a_reranker_that_doubles_is_refused() -> None:
    class Doubles(BaseNodePostprocessor):
        def _postprocess_nodes(
            self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
        ) -> list[NodeWithScore]:
            return [nodes[0], *nodes]

    with pytest.raises(ValueError, match="the picture 'a' is in the list of reranker 'mine' more than once"):
        run(reranker={"mine": Doubles()})
    with pytest.raises(ValueError, match="a reranker cannot be called 'retrieved'"):
        run(reranker={"retrieved": Doubles()})


def test_a_picture_of_another_gallery_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no image_path\), which is not in the gallery \(mine all, all, 3 pictures\)"
    ):
        run(("a", "z"))


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="query 'q0': 1 pictures were retrieved, and 2 are needed"):
        run(("a",))


def test_a_subset_needs_the_whole_list(tmp_path: Path) -> None:
    queries = (BenchmarkQuery("q0", text="words", relevant=("a",), subset=("a", "z")),)
    with pytest.raises(ValueError, match="query 'q0': 'z' is not in the gallery"):
        Benchmark("mine", "all", queries, (recall_at(1),), Gallery("all", frozenset(IDS)))
    folder = write_cirr(tmp_path)
    cirr = load_cirr(folder)
    assert cirr.gallery is not None
    ids = sorted(cirr.gallery.ids)
    with pytest.raises(ValueError, match="were retrieved, and 9 are needed"):
        evaluate(cirr, Fixed(ids[:-2]), model="none", show_progress=False)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="retriever must be a retriever or an index, got str"):
        evaluate(benchmark(), "index", model="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ablations may hold 'image' and 'text', got 'composed'"):
        run(ablations=("composed",))
    with pytest.raises(ValueError, match="rerank_depth must be at least 1, got 0"):
        run(rerank_depth=0)


def test_benchmarks_are_checked() -> None:
    one = BenchmarkQuery("q", text="words", relevant=("a",))
    with pytest.raises(ValueError, match="two queries are called 'q'"):
        Benchmark("mine", "all", (one, one), (recall_at(1),))
    with pytest.raises(ValueError, match="two metrics are called 'Recall@1'"):
        Benchmark("mine", "all", (one,), (recall_at(1), recall_at(1)))
    with pytest.raises(ValueError, match="at least one query"):
        Benchmark("mine", "all", (), (recall_at(1),))
    with pytest.raises(ValueError, match="neither text nor image"):
        BenchmarkQuery("q")
    with pytest.raises(ValueError, match="the relevant id 'a' twice"):
        BenchmarkQuery("q", text="words", relevant=("a", "a"))
    with pytest.raises(ValueError, match="both relevant and excluded"):
        BenchmarkQuery("q", text="words", relevant=("a",), excluded=("a",))


def test_what_is_written_can_be_read() -> None:
    found = run()
    content = json.loads(found.to_json())
    assert content["protocol"]["benchmark"] == "mine"
    assert content["figures"]["means"] == [
        {
            "asked": "text",
            "sides": "text",
            "ranking": "retrieved",
            "queries": 4,
            "figures": {"Recall@2": {"mean": 1.0, "low": 1.0, "high": 1.0}},
        }
    ]
    lines = found.to_markdown().split("\n")
    assert lines[:3] == [
        "| asked with | list | queries | Recall@2 |",
        "| --- | --- | --- | --- |",
        "| text only | retrieved | 4 | 1.000 [1.000, 1.000] |",
    ]
    assert "| gallery size | 3 |" in lines
    assert protocol_table([found.protocol, found.protocol]).split("\n")[2] == "| benchmark | mine | mine |"


def test_a_row_says_what_was_left_out_of_its_queries(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "cup.png")
    queries = (
        BenchmarkQuery("both", text="words", image=tmp_path / "cup.png", relevant=("a",)),
        BenchmarkQuery("words", text="words", relevant=("a",)),
        BenchmarkQuery("picture", image=tmp_path / "cup.png", relevant=("a",)),
    )
    mixed = Benchmark("mine", "all", queries, (recall_at(1),), Gallery("all", frozenset(IDS)))
    lines = evaluate(mixed, Fixed(), model="none", show_progress=False).to_markdown().split("\n")
    assert [line.split(" | ")[0] for line in lines[2:8]] == [
        "| composed, image only",
        "| composed, text only",
        "| composed",
        "| text only",
        "| image only",
        "| composed minus better side",
    ]


def test_only_like_is_averaged() -> None:
    with pytest.raises(ValueError, match="at least one evaluation"):
        average([])
    queries = benchmark().queries
    other = Benchmark("other", "all", queries, (ndcg_at(1),))
    found = evaluate(other, Fixed(), model="none", show_progress=False)
    with pytest.raises(ValueError, match="the metrics differ"):
        average([run(), found])


def test_submissions_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the file for CIRR's server; the evaluation is of mine"):
        write_cirr_submission(run(), tmp_path)
    with pytest.raises(ValueError, match="the file for CIRCO's server; the evaluation is of mine"):
        write_circo_submission(run(), tmp_path / "a.json")
    with pytest.raises(ValueError, match="ranking must be one of 'retrieved', got 'reranked'"):
        run().rankings("reranked")
