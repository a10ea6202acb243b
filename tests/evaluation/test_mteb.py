"""mteb runs our embedding and our reranker on a tiny task of pictures, made here; nothing is downloaded."""

from __future__ import annotations

import math
from unittest import mock

import pytest

mteb = pytest.importorskip("mteb", reason='mteb is not installed: pip install ".[mteb]"')

from datasets import Dataset, Features, Image, Value  # noqa: E402
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import NodeWithScore, TextNode  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models import EncoderProtocol, SearchProtocol  # noqa: E402
from PIL import Image as PILImage  # noqa: E402
from support.vlm_doubles import TextModel  # noqa: E402

from llama_index_multimodal_rerank import (  # noqa: E402
    AdaptiveRerank,
    ImageText,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
)
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture  # noqa: E402
from llama_index_multimodal_rerank.demo.drawing.looks import Look  # noqa: E402
from llama_index_multimodal_rerank.evaluation.mteb import MTEBEncoder, MTEBReranker  # noqa: E402
from llama_index_multimodal_rerank.evaluation.mteb.inputs import batch_strings, document_node  # noqa: E402

LOOKS = [
    Look("umbrella", "leopard", "yellow"),
    Look("mug", "leopard", "yellow"),
    Look("umbrella", "plain", "blue"),
    Look("mug", "dots", "red"),
    Look("shoe", "stripes", "green"),
]
QUESTIONS = {"q-umbrella": "an umbrella with this", "q-mug": "a mug with this", "q-shoe": "a shoe with this"}


def metadata(name, category="it2i", **changes):
    known = {
        "name": name,
        "description": "Made by a test.",
        "dataset": {"path": "none/none", "revision": "0"},
        "reference": None,
        "type": "Any2AnyRetrieval",
        "category": category,
        "modalities": ["image", "text"],
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "main_score": "ndcg_at_10",
        "date": None,
        "domains": None,
        "task_subtypes": None,
        "license": None,
        "annotations_creators": None,
        "dialect": None,
        "sample_creation": None,
        "bibtex_citation": None,
        "prompt": {"query": "Retrieve something."},
    }
    return TaskMetadata(**{**known, **changes})


def pictures(rows):
    """Rows with an id, a picture and perhaps a text, as a data set."""
    with_text = "text" in rows[0]
    features = {"id": Value("string"), "image": Image()} | ({"text": Value("string")} if with_text else {})
    return Dataset.from_list(rows, features=Features(features))


def task_of(corpus, queries, right, top_ranked=None, **changes):
    about = metadata("TinyTask", **changes)

    class TinyTask(AbsTaskRetrieval):
        metadata = about

        def load_data(self, *args, **kwargs):
            split = {
                "corpus": corpus,
                "queries": queries,
                "relevant_docs": {query: dict.fromkeys(ids, 1) for query, ids in right.items()},
                "top_ranked": top_ranked,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return TinyTask()


def scores(model, task):
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    ((found,),) = (each.scores["test"] for each in result.task_results)
    return found


@pytest.fixture(scope="module")
def embed_model():
    return VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")


def drawn():
    corpus = pictures([{"id": str(look), "image": draw_query_picture(look, seed=1)} for look in LOOKS])
    queries = pictures(
        [
            {"id": id_, "image": draw_query_picture("leopard", seed=number), "text": text}
            for number, (id_, text) in enumerate(QUESTIONS.items())
        ]
    )
    return corpus, queries


def retrieval_orders(embed_model, corpus, queries):
    """The orders of our own vectors, without mteb."""
    documents = embed_model.encode([ImageText("", row["image"]) for row in corpus])
    vectors = embed_model.encode([ImageText(row["text"], row["image"]) for row in queries])
    return {
        query: [corpus["id"][place] for place in (-(documents @ vector)).argsort()]
        for query, vector in zip(queries["id"], vectors, strict=True)
    }


def test_both_faces_give_the_metric_that_was_computed_by_hand(embed_model):
    """The right ones are at the places 1, then 2, then 1 and 3, of what the model itself orders so.

    A right one at place p gains 1 / log2(1 + p): 1, 0.6309, 0.5 at the places 1, 2, 3. So nDCG@10 is 1, then
    0.6309, then (1 + 0.5) / (1 + 0.6309) = 0.9197: 0.8502 in the mean. MRR is (1 + 1/2 + 1) / 3, recall@1
    (1 + 0 + 1/2) / 3.

    Turned round, the five have them at 5; at 4; at 5 and 3: 0.3869, 0.4307, (0.5 + 0.3869) / 1.6309 = 0.5438,
    0.4538 in the mean.
    """
    corpus, queries = drawn()
    orders = retrieval_orders(embed_model, corpus, queries)
    assert orders["q-umbrella"][0] == "yellow leopard umbrella"
    first, second, third = orders.values()
    right = {"q-umbrella": [first[0]], "q-mug": [second[1]], "q-shoe": [third[0], third[2]]}

    found = scores(MTEBEncoder(embed_model), task_of(corpus, queries, right))
    assert found["main_score"] == found["ndcg_at_10"] == pytest.approx(0.85022, abs=1e-5)
    assert found["mrr_at_10"] == pytest.approx(2.5 / 3, abs=1e-5)
    assert found["recall_at_1"] == pytest.approx(0.5)

    turned = scores(MTEBReranker(TurnsRound(), embed_model), task_of(corpus, queries, right))
    assert turned["ndcg_at_10"] == pytest.approx(0.45377, abs=1e-5)
    # The first two turned round: places 2; 1; 2 and 3.
    two = scores(MTEBReranker(TurnsRound(), embed_model, depth=2), task_of(corpus, queries, right))
    expected = (1 / math.log2(3) + 1 + (1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3))) / 3
    assert two["ndcg_at_10"] == pytest.approx(expected, abs=1e-5)


def test_the_demo_reranker_finds_what_is_asked_for(embed_model):
    corpus, queries = drawn()
    right = {"q-umbrella": ["yellow leopard umbrella"], "q-mug": ["yellow leopard mug"]}
    reranker = Phi3VisionRerank(
        model="demo", device="cpu", dtype="float32", top_n=9, strategy="first_token", explain=False
    )
    found = scores(MTEBReranker(reranker, embed_model), task_of(corpus, queries, right))
    assert found["ndcg_at_1"] == 1.0


class TurnsRound(BaseNodePostprocessor):
    """A reranker without ``rerank_batch``, whose scores are all the same."""

    def _postprocess_nodes(self, nodes, query_bundle=None):
        return [NodeWithScore(node=hit.node, score=1.0) for hit in nodes[::-1]]


REDS = {"d20": 20, "d200": 200, "d90": 90, "d250": 250}


def coloured(top_ranked=None):
    corpus = pictures(
        [
            {"id": id_, "image": PILImage.new("RGB", (30, 20), (red, 100, 250 - red))}
            for id_, red in REDS.items()
        ]
    )
    queries = pictures([{"id": "q", "image": PILImage.new("RGB", (9, 9), "red"), "text": "redder"}])
    return task_of(corpus, queries, {"q": ["d90"]}, top_ranked)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, 2),  # 200, 90, 20: the list has three of the four
        ({"top_n": 1}, 3),  # 200, then as they were: 20, 90
        ({"depth": 2}, 3),  # 200 and 20 reranked, 90 behind
        ({"adaptive": True}, 2),
    ],
)
def test_lists_that_a_task_gives(options, place):
    """nDCG@10 of one right document at place p is 1 / log2(1 + p)."""
    reranker = Phi3VisionRerank(model=TextModel(), top_n=options.get("top_n", 9))
    if options.get("adaptive"):
        reranker = AdaptiveRerank(reranker=reranker, margin=0.1)  # without scores it reranks
    model = MTEBReranker(reranker, depth=options.get("depth", 9), lists_are_ordered=True)
    found = scores(model, coloured({"q": ["d20", "d200", "d90"]}))
    assert found["ndcg_at_10"] == pytest.approx(1 / math.log2(1 + place), abs=1e-5)


def test_an_order_that_may_tell_the_answer_is_shuffled():
    seen = []

    class Sees(TurnsRound):
        def _postprocess_nodes(self, nodes, query_bundle=None):
            seen.append([hit.node.node_id for hit in nodes])
            return nodes

    lists = {"q": list(REDS)}
    scores(MTEBReranker(Sees()), coloured(lists))
    scores(MTEBReranker(Sees()), coloured(lists))
    scores(MTEBReranker(Sees(), lists_are_ordered=True), coloured(lists))
    assert seen[0] == seen[1] != seen[2] == list(REDS)
    assert sorted(seen[0]) == sorted(REDS)
    assert lists == {"q": list(REDS)}


def test_what_cannot_be_done(embed_model):
    with pytest.raises(ValueError, match="gives no lists to rerank: give an embed_model"):
        scores(MTEBReranker(TurnsRound()), coloured())
    with pytest.raises(ValueError, match="depth must be 1 or more, got 0"):
        MTEBReranker(TurnsRound(), depth=0)
    with pytest.raises(ValueError, match="lists_are_ordered is for lists that no embed_model orders"):
        MTEBReranker(TurnsRound(), embed_model, lists_are_ordered=True)
    heard = metadata("Heard", "a2i", modalities=["audio", "image"])
    with pytest.raises(ValueError, match="Heard has audio; this model takes text and image"):
        MTEBEncoder(embed_model).encode(
            [],
            task_metadata=heard,
            hf_split="test",
            hf_subset="default",
            prompt_type=mteb.types.PromptType.query,
        )
    with pytest.raises(ValueError, match="precision='int8'"):
        MTEBEncoder(embed_model).encode(
            [], task_metadata=metadata("Seen"), hf_split="test", hf_subset="default", precision="int8"
        )


def test_batches_of_texts_pictures_and_both(embed_model):
    red = PILImage.new("RGB", (9, 9), "red")
    strings = batch_strings({"text": ["a", "b"], "image": [None, red]})
    assert (strings, type(strings[0]), strings[1].image) == (["a", strings[1]], str, red)
    assert batch_strings({"image": [red]})[0].image is red
    assert batch_strings({"text": ["a"]}) == ["a"]
    with pytest.raises(ValueError, match="neither text nor image: it has audio"):
        batch_strings({"audio": [1]})

    encoder = MTEBEncoder(embed_model)
    about = {"task_metadata": metadata("Seen"), "hf_split": "test", "hf_subset": "default"}
    found = encoder.encode([{"text": ["a", "b"], "image": [None, red]}, {"text": ["c"]}], **about)
    expected = embed_model.encode(["a", ImageText("b", red), "c"])
    assert found == pytest.approx(expected, abs=1e-5)
    assert encoder.encode([], **about).shape == (0, embed_model.dim)


def test_documents_have_titles_before_their_texts():
    row = {"id": "d", "title": "A mug", "text": "for tea", "image": PILImage.new("RGB", (9, 9))}
    both = document_node(row, metadata("Both", "it2it"))
    assert (both.text, both.node_id) == ("A mug for tea", "d")
    assert both.image is not None
    assert document_node(row, metadata("Pictures", "it2i")).text == ""
    text = document_node({**row, "text": None}, metadata("Texts", "i2t"))
    assert isinstance(text, TextNode)
    assert text.text == "A mug"


def test_what_results_say_about_the_model(embed_model):
    encoder = MTEBEncoder(embed_model)
    assert isinstance(encoder, EncoderProtocol)
    meta = encoder.mteb_model_meta
    assert meta.name == "llama-index-multimodal-rerank/demo"
    assert meta.embed_dim == embed_model.dim
    assert meta.n_parameters > 100_000
    assert (meta.open_weights, meta.license, meta.training_datasets) == (None, None, None)
    other = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32", normalize=False)
    assert len(meta.revision) == 40
    assert MTEBEncoder(embed_model).mteb_model_meta.revision == meta.revision
    assert MTEBEncoder(other).mteb_model_meta.revision != meta.revision

    nine, three = (MTEBReranker(Phi3VisionRerank(model="demo", top_n=n), embed_model) for n in (9, 3))
    assert isinstance(nine, SearchProtocol)
    assert not isinstance(nine, EncoderProtocol)
    assert nine.mteb_model_meta.name == "llama-index-multimodal-rerank/demo-over-demo"
    assert nine.mteb_model_meta.revision != three.mteb_model_meta.revision


def test_nothing_is_asked_of_the_network(embed_model):
    corpus, queries = drawn()
    with mock.patch("socket.socket.connect", side_effect=AssertionError("the network was asked")):
        scores(MTEBEncoder(embed_model), task_of(corpus, queries, {"q-mug": ["yellow leopard mug"]}))
