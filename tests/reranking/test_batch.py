"""Many queries at once: the results of each alone, fewer calls, and a failed one takes none of the others."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle
from PIL import Image
from support.vlm_doubles import ConstrainedTextModel, LogitModel, PrefillingTextModel, TextModel

from llama_index_multimodal_rerank import ImageTextQuery, Phi3VisionRerank, image_node
from llama_index_multimodal_rerank.reranking.batch import RerankBatchError

REDS = ([20, 200, 90], [230, 40, 120], [60, 70, 250, 10], [1, 2, 3])


def asked(reds=REDS):
    queries = []
    for number, values in enumerate(reds):
        nodes = [
            NodeWithScore(
                node=image_node(Image.new("RGB", (30, 20), (red, 100, 250 - red)), id_=str(red)), score=0.5
            )
            for red in values
        ]
        queries.append((nodes, QueryBundle(f"redder {number}")))
    return queries


def ids(results):
    return [[hit.node.node_id for hit in each] for each in results]


EXPECTED = [["200", "90", "20"], ["230", "120", "40"], ["250", "70", "60", "10"], ["3", "2", "1"]]


class CountsBatches(LogitModel):
    def __init__(self):
        super().__init__()
        self.batches = []

    def label_logprobs(self, requests):
        self.batches.append(len(requests))
        if any("redder 1" in request.prompt for request in requests):
            raise RuntimeError("cannot see this")
        return super().label_logprobs(requests)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("model", [TextModel, LogitModel, ConstrainedTextModel, PrefillingTextModel])
@pytest.mark.parametrize("explain", [True, False])
async def test_results_are_those_of_each_query_alone(kind, model, explain):
    strategy = "listwise" if model in (TextModel, ConstrainedTextModel) else "first_token"
    rerank = Phi3VisionRerank(model=model(), top_n=9, strategy=strategy, explain=explain)

    together = await rerank.arerank_batch(asked()) if kind == "async" else rerank.rerank_batch(asked())

    alone = [rerank.postprocess_nodes(nodes, query) for nodes, query in asked()]
    assert ids(together) == EXPECTED == ids(alone)
    for hit in [hit for results in (together, alone) for each in results for hit in each]:
        assert hit.node.metadata["rerank_audit"]["cost"].pop("seconds") >= 0
    assert [[hit.node.metadata for hit in each] for each in together] == [
        [hit.node.metadata for hit in each] for each in alone
    ]
    assert [[hit.score for hit in each] for each in together] == [
        [hit.score for hit in each] for each in alone
    ]


def test_sheets_of_equally_many_labels_share_a_batch():
    model = ConstrainedTextModel()
    Phi3VisionRerank(model=model, explain=False).rerank_batch(asked())
    assert [size for size, *_ in model.batches] == [3, 1]

    model = ConstrainedTextModel()
    Phi3VisionRerank(model=model, explain=False).rerank_batch(asked(), batch_size=2)
    assert [size for size, *_ in model.batches] == [2, 1, 1]


def test_a_model_goes_on_from_what_it_read_before_it_reads_for_the_next_query():
    model = PrefillingTextModel()
    Phi3VisionRerank(model=model, strategy="first_token").rerank_batch(asked())
    assert model.read == 4
    assert [size for size, *_ in model.ranked] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_query_that_fails_takes_none_of_the_others(kind):
    async def run(**settings):
        rerank = Phi3VisionRerank(
            model=CountsBatches(), strategy="first_token", explain=False, top_n=9, **settings
        )
        queries = asked()
        queries[3] = (queries[3][0], ImageTextQuery("redder", image_path="/gone.png"))
        if kind == "async":
            return await rerank.arerank_batch(queries)
        return rerank.rerank_batch(queries)

    with pytest.raises(RerankBatchError, match=r"2 of 4 queries failed, .* query 1: .*cannot see") as raised:
        await run()
    assert sorted(raised.value.errors) == [1, 3]
    assert raised.value.results[1] is None
    assert ids([raised.value.results[0], raised.value.results[2]]) == [EXPECTED[0], EXPECTED[2]]

    kept = await run(on_error="keep_order")
    assert ids(kept) == [EXPECTED[0], ["230", "40", "120"], EXPECTED[2], ["1", "2", "3"]]
    assert "cannot see this" in kept[1][0].node.metadata["rerank_audit"]["error"]


def test_nothing_asked_and_what_cannot_be_asked():
    rerank = Phi3VisionRerank(model=TextModel())
    assert rerank.rerank_batch([]) == []
    with pytest.raises(ValueError, match="batch_size must be 1 or more queries, got 0"):
        rerank.rerank_batch(asked(), batch_size=0)
