"""Eight queries at once: captions, scores, lists and reasons share the decoder's passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.schema import NodeWithScore
from PIL import Image
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import ImageTextQuery, LocalPhi3Vision, Phi3VisionRerank, image_node
from llama_index_multimodal_rerank.reranking.batch import RerankBatchError
from llama_index_multimodal_rerank.vlm.protocols import BatchGeneratingModel, BatchPrefillingModel

REASON, CAPTION = 6, 64
MODES: dict[str, dict[str, Any]] = {
    "listwise": {"strategy": "listwise", "caption": True, "explain": True},
    "listwise without reason": {"strategy": "listwise", "caption": False, "explain": False},
    "first_token with caption": {"strategy": "first_token", "caption": True, "explain": False},
    "first_token with reason": {"strategy": "first_token", "caption": True, "explain": True},
    "permutations": {"permutations": 2, "caption": False, "explain": True},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> LocalPhi3Vision:
    folder = write_folder(tmp_path_factory.mktemp("tiny-phi3"))
    return LocalPhi3Vision(str(folder), device="cpu", dtype="float32", num_crops=1)


def picture(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)


def asked(count: int) -> list[tuple[list[NodeWithScore], ImageTextQuery]]:
    return [
        (
            [
                NodeWithScore(node=image_node(picture(10 * number + i), id_=f"{number}-{i}"), score=0.5)
                for i in range(3)
            ],
            ImageTextQuery("a word " * (1 + number), image=picture(1000 + number // 2)),
        )
        for number in range(count)
    ]


def shown(results: list[list[NodeWithScore]]) -> list[Any]:
    for hit in (hit for each in results for hit in each):
        hit.node.metadata["rerank_audit"].get("cost", {}).pop("seconds", None)  # measured
    return [
        (hit.node.node_id, pytest.approx(hit.score, abs=1e-4), hit.node.metadata)
        for each in results
        for hit in each
    ]


class Passes:
    """Rows of each forward pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.rows: list[int] = []
        self._handle = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.rows.append(len(kwargs["input_ids"]))

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def test_the_local_model_shares_all_calls(vlm: LocalPhi3Vision) -> None:
    assert isinstance(vlm, BatchGeneratingModel)
    assert isinstance(vlm, BatchPrefillingModel)


@pytest.mark.parametrize("mode", MODES)
def test_together_as_alone_in_fewer_passes(mode: str, vlm: LocalPhi3Vision) -> None:
    count = 4

    def reranker() -> Phi3VisionRerank:  # one that knows no captions
        return Phi3VisionRerank(model=vlm, top_n=3, max_new_tokens=REASON, **MODES[mode])

    model = vlm.load().model
    with Passes(model) as alone:
        expected = [reranker().postprocess_nodes(*each) for each in asked(count)]
    with Passes(model) as together:
        found = reranker().rerank_batch(asked(count))

    assert shown(found) == shown(expected)
    # Rows that end early, or have other orders, make up the difference to the passes of one query. Reasons
    # for orders that were counted together are written one by one.
    of_one = len(alone.rows) / count
    assert len(together.rows) <= of_one + 12 + (count * (REASON + 1) if mode == "permutations" else 0)
    assert max(together.rows) >= count / 2  # captions are of two pictures


async def test_one_that_fails_takes_none_of_the_others(vlm: LocalPhi3Vision) -> None:
    """After the scores were read together, the reasons of the others still are."""
    rerank = Phi3VisionRerank(
        model=vlm, strategy="first_token", caption=False, explain=True, top_n=3, max_new_tokens=REASON
    )
    expected = [rerank.postprocess_nodes(*each) for each in asked(3)]
    queries = asked(3)
    queries[1] = (queries[1][0], ImageTextQuery("x", image_path="/gone.png"))
    with pytest.raises(RerankBatchError) as raised:
        await rerank.arerank_batch(queries)
    assert sorted(raised.value.errors) == [1]
    left = [each for each in raised.value.results if each is not None]
    assert shown(left) == shown([expected[0], expected[2]])


def test_a_batch_that_fails_is_asked_one_by_one(
    vlm: LocalPhi3Vision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its keys and values do not fit the device."""

    def fresh() -> Phi3VisionRerank:  # one that knows no captions
        return Phi3VisionRerank(model=vlm, strategy="first_token", top_n=3, max_new_tokens=REASON)

    expected = [fresh().postprocess_nodes(*each) for each in asked(3)]
    refused = []

    def refusing(name: str, plain: Any) -> Any:
        def call(requests: Any, **options: Any) -> Any:
            if len(requests) > 1:
                refused.append(name)
                raise torch.OutOfMemoryError("out of memory")
            return plain(requests, **options)

        return call

    for name in ("generate_batch", "prefill_requests"):
        monkeypatch.setattr(vlm, name, refusing(name, getattr(vlm, name)))
    assert shown(fresh().rerank_batch(asked(3))) == shown(expected)
    assert refused == ["generate_batch", "prefill_requests"]


def test_queries_with_one_picture_have_it_described_once(vlm: LocalPhi3Vision) -> None:
    rows = []
    plain = vlm.generate_batch

    class Watched(LocalPhi3Vision):
        def load(self) -> Any:
            return vlm.load()

        def generate_batch(self, prompts: Any, *, max_new_tokens: int) -> list[str]:
            rows.append(len(prompts))
            return plain(prompts, max_new_tokens=max_new_tokens)

    rerank = Phi3VisionRerank(
        model=Watched("same weights", num_crops=1), strategy="first_token", explain=False, top_n=3
    )
    found = rerank.rerank_batch(asked(4))  # of two pictures
    assert rows == [2]
    captions = [each[0].node.metadata["rerank_query_caption"] for each in found]
    assert captions[0] == captions[1] != captions[2] == captions[3]
