"""Steps over fixed memory write what memory that grows writes, also when they are replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import phi3_vision_golden as golden
from support.drawing import draw
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import LocalPhi3Vision
from llama_index_multimodal_rerank.models.cuda_graphs import BatchFunction, CapturedBatch
from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.vlm import static_decoding
from llama_index_multimodal_rerank.vlm.decoding import PrefilledPrompt, write_freely
from llama_index_multimodal_rerank.vlm.prompt_batch import Prompt
from llama_index_multimodal_rerank.vlm.protocols import ImagePrompt, LabelRanking, RankRequest
from llama_index_multimodal_rerank.vlm.static_decoding import StaticDecoder, StaticPrompt

MIB = 2**20
CHECKED = [case for case in golden.cases() if case["checks"]["generation"] and case.get("images")]
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Recorder:
    """Stands in for CUDA: a replay runs what was captured on the very tensors of that time.

    What a step read beside its input and the fixed memory would be of the time of the capture.
    """

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.captured: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(self, function: BatchFunction, batch: torch.Tensor) -> CapturedBatch:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured.append(tuple(batch.shape))
        inputs = batch.clone()
        outputs = function(inputs)

        def replay() -> None:
            self.replays += 1
            outputs.copy_(function(inputs))

        return CapturedBatch(inputs, outputs, replay)


def decoder_of(model: Phi3VisionForConditionalGeneration, gpu: Recorder | None = None, mib: int = 64) -> Any:
    return StaticDecoder(model, capture=gpu or Recorder(), most_bytes=mib * MIB)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's prompts are shorter than those of the released one."""
    monkeypatch.setattr(static_decoding, "SLOTS", 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny-phi3"))


@pytest.fixture(scope="module")
def load(checkpoint: Path) -> Callable[[dict[str, Any] | None], Phi3VisionForConditionalGeneration]:
    def load(overrides: dict[str, Any] | None = None) -> Phi3VisionForConditionalGeneration:
        config = Phi3VisionConfig(**{**golden.read_json("config_tiny.json"), **(overrides or {})})
        return Phi3VisionForConditionalGeneration.from_pretrained(checkpoint, config=config)

    return load


@pytest.fixture(scope="module")
def model(load: Any) -> Phi3VisionForConditionalGeneration:
    return load(None)


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Phi3VisionProcessor:
    return Phi3VisionProcessor.from_pretrained(checkpoint)


def prompt_of(model: Any, processor: Any, texts: list[str], images: Any, num_crops: int) -> Prompt:
    inputs = processor(texts, images, num_crops=num_crops)
    features = ()
    if "pixel_values" in inputs:
        features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    return Prompt(inputs["input_ids"], inputs["attention_mask"], tuple(features))


@pytest.mark.parametrize("case", CHECKED, ids=lambda case: case["name"])
def test_golden_generations(case: dict[str, Any], load: Any, processor: Phi3VisionProcessor) -> None:
    model, gpu = load(case["config_overrides"]), Recorder()
    images = golden.pictures(case["images"])
    prompt = prompt_of(model, processor, [case["text"]], [images], case["num_crops"])
    tokens = len(case["generated"])
    prefilled = PrefilledPrompt(model, prompt, decoder=decoder_of(model, gpu), room=tokens)
    expected = case.get("generated_without_cache", case["generated"])
    assert write_freely(prefilled, (), tokens) == [expected]
    fits = prompt.input_ids.shape[1] + tokens <= model.config.original_max_position_embeddings
    assert gpu.replays == (tokens - 2 if fits else 0)  # the prompt, a plain step, and then the graph


TEXTS = [
    "<|image_1|> what?",
    "Only text",
    "<|image_1|> " + "is longer than the others " * 3,
]


def batch(model: Any, processor: Any) -> Prompt:
    images = [[draw("square")], [], [draw("square")]]
    return prompt_of(model, processor, TEXTS, images, 1)


def test_a_padded_batch_step_by_step(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    """Runs of all lengths, kept and peeked at, give the logits of memory that grows."""
    prompt = batch(model, processor)
    assert prompt.attention_mask.sum(dim=1).unique().numel() == 3  # three lengths
    gpu = Recorder()
    dynamic = PrefilledPrompt(model, prompt)
    static = PrefilledPrompt(model, prompt, decoder=decoder_of(model, gpu), room=60)
    assert torch.equal(static.logits, dynamic.logits)
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 1, 5, 8, 3, 1, 9, 20, 1):
        ids = torch.randint(3, 200, (3, length), generator=generator)
        peeked = tuple(ids[0, :3].tolist())
        for row in range(3):
            torch.testing.assert_close(
                static.peek(peeked, row), dynamic.peek(peeked, row), rtol=0, atol=golden.SAME_LOGITS
            )
        torch.testing.assert_close(static.extend(ids), dynamic.extend(ids), rtol=0, atol=golden.SAME_LOGITS)
    assert {(3, 1 + 3), (3, 8 + 3)} <= set(gpu.captured)  # runs are filled up to 8
    assert isinstance(static._read, StaticPrompt)


def test_memory_stays_where_it_is(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    decoder = decoder_of(model)
    seen = set()
    for text in ("one", "another prompt that is longer"):
        prompt = prompt_of(model, processor, [text], None, 1)
        prefilled = PrefilledPrompt(model, prompt, decoder=decoder, room=30)
        for _ in range(5):
            prefilled.extend(torch.tensor([[7]]))
            seen.add(tuple(layer.keys.data_ptr() for layer in prefilled._read._cache.layers))
    assert len(seen) == 1
    assert decoder.held_bytes > 0


def test_a_graph_of_one_prompt_serves_the_next(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    gpu = Recorder()
    decoder = decoder_of(model, gpu)
    for text in ("one", "another prompt", "and a third that is somewhat longer"):
        prompt = prompt_of(model, processor, [text], None, 1)
        found = write_freely(PrefilledPrompt(model, prompt, decoder=decoder, room=12), (), 12)
        assert found == write_freely(PrefilledPrompt(model, prompt), (), 12)
    assert len(gpu.captured) == 1
    assert gpu.replays == 3 * 11 - 1


def test_what_memory_held_before_does_not_matter(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    decoder = decoder_of(model)
    prompt = prompt_of(model, processor, ["some words"], None, 1)
    expected = write_freely(PrefilledPrompt(model, prompt), (), 6)
    PrefilledPrompt(model, prompt, decoder=decoder, room=6)
    decoder._memory.fill_(torch.nan)
    assert write_freely(PrefilledPrompt(model, prompt, decoder=decoder, room=6), (), 6) == expected


def test_more_than_there_is_room_for_goes_on_in_memory_that_grows(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    prompt = prompt_of(model, processor, ["some words"], None, 1)
    prefilled = PrefilledPrompt(model, prompt, decoder=decoder_of(model), room=4)
    found = write_freely(prefilled, (), 80)
    assert not isinstance(prefilled._read, StaticPrompt)
    assert found == write_freely(PrefilledPrompt(model, prompt), (), 80)


def test_long_and_large_prompts_take_memory_that_grows(load: Any, processor: Phi3VisionProcessor) -> None:
    model = load({"original_max_position_embeddings": 40})
    decoder = decoder_of(model)
    prompt = prompt_of(model, processor, ["some words"], None, 1)
    length = prompt.input_ids.shape[1]
    assert isinstance(PrefilledPrompt(model, prompt, decoder=decoder, room=40 - length)._read, StaticPrompt)
    long = PrefilledPrompt(model, prompt, decoder=decoder, room=41 - length)
    assert not isinstance(long._read, StaticPrompt)
    small = StaticDecoder(model, capture=Recorder(), most_bytes=1000)
    assert not isinstance(PrefilledPrompt(model, prompt, decoder=small)._read, StaticPrompt)
    assert small.held_bytes == 0


def test_growing_past_the_factors_in_a_batch(load: Any, processor: Phi3VisionProcessor) -> None:
    """A filled up run does not touch the factors; a row that outgrows them is read anew."""
    plain = load(None)
    prompt = batch(plain, processor)
    model = load({"original_max_position_embeddings": prompt.input_ids.shape[1] + 10})
    prefilled = PrefilledPrompt(model, prompt, decoder=decoder_of(model), room=10)
    dynamic = PrefilledPrompt(model, prompt)
    assert isinstance(prefilled._read, StaticPrompt)
    for length in (9, 1, 2, 1):
        ids = torch.full((3, length), 9)
        torch.testing.assert_close(
            prefilled.extend(ids), dynamic.extend(ids), rtol=0, atol=golden.SAME_LOGITS
        )
    assert not isinstance(prefilled._read, StaticPrompt)


def test_memory_and_graphs_are_bounded(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor, monkeypatch: Any
) -> None:
    monkeypatch.setattr(static_decoding, "LEAST_TOKENS", 64)
    monkeypatch.setattr(static_decoding, "MOST_GRAPHS", 3)
    gpu = Recorder()
    decoder = decoder_of(model, gpu, mib=2)
    for rows in (1, 2, 1, 8, 3, 2, 5, 8, 40):
        prompt = prompt_of(model, processor, ["some words"] * rows, None, 1)
        prefilled = PrefilledPrompt(model, prompt, decoder=decoder, room=20)
        found = write_freely(prefilled, (), 4)
        assert found == write_freely(PrefilledPrompt(model, prompt), (), 4)
        assert decoder.held_bytes <= 2 * MIB
        assert len(decoder.graphs.graphs) <= 3
    assert len(gpu.captured) > 3


def test_without_graphs_steps_are_launched_plainly(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor, caplog: Any
) -> None:
    prompt = prompt_of(model, processor, ["some words"], None, 1)
    decoder = decoder_of(model, Recorder(fails=True))
    with caplog.at_level(logging.WARNING):
        found = write_freely(PrefilledPrompt(model, prompt, decoder=decoder, room=6), (), 6)
    assert found == write_freely(PrefilledPrompt(model, prompt), (), 6)
    assert len(caplog.records) == 1


def test_a_prompt_whose_memory_was_given_away_says_so(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    decoder = decoder_of(model)
    prompt = prompt_of(model, processor, ["some words"], None, 1)
    first = PrefilledPrompt(model, prompt, decoder=decoder, room=6)
    PrefilledPrompt(model, prompt, decoder=decoder, room=6)
    with pytest.raises(RuntimeError, match="made room for those of another"):
        first.extend(torch.tensor([[7]]))


def test_answers_end_where_generate_ends_them(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    """Rows end at different places, as transformers' own generation has it."""
    prompt = batch(model, processor)
    free = write_freely(PrefilledPrompt(model, prompt), (), 12)
    stops = {free[0][2], free[1][5]}
    plain = model.generate(
        prompt.input_ids,
        attention_mask=prompt.attention_mask,
        image_features=prompt.image_features,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=sorted(stops),
        pad_token_id=0,
    )[:, prompt.input_ids.shape[1] :].tolist()

    for decoder in (None, decoder_of(model)):
        found = write_freely(PrefilledPrompt(model, prompt, decoder=decoder, room=12), stops, 12)
        assert [row + [0] * (len(plain[0]) - len(row)) for row in found] == plain
        assert len({len(row) for row in found}) > 1


# -- the reranker's model -------------------------------------------------------------------------


def picture(seed: int, size: tuple[int, int] = (336, 336)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def sheets(count: int, labels: int) -> list[RankRequest]:
    words = ("Which is best?", "Which of these pictures is the best one?", "Which one, and why is it so?")
    return [RankRequest((picture(i),), words[i % 3], labels) for i in range(count)]


CALLS: dict[str, Callable[[LocalPhi3Vision], Any]] = {
    "caption": lambda vlm: vlm.generate((picture(1, (64, 48)),), "What is it?", max_new_tokens=9),
    "captions": lambda vlm: vlm.generate_batch(
        [ImagePrompt((picture(i, (64, 48)),), "What is it?" * (i + 1)) for i in range(3)], max_new_tokens=9
    ),
    "scores": lambda vlm: vlm.label_logprobs(sheets(3, 12)),
    "lists": lambda vlm: vlm.rank_labels(sheets(3, 12), max_new_tokens=0),
    "list and reason": lambda vlm: vlm.rank_labels(sheets(1, 9), max_new_tokens=9),
    "lists and reasons": lambda vlm: vlm.rank_labels(sheets(3, 12), max_new_tokens=9),
    "known order": lambda vlm: vlm.rank_labels(sheets(2, 4), max_new_tokens=9, order=(2, 0, 3, 1)),
    "one reading": lambda vlm: vlm.prefill_requests(sheets(2, 11)).rank_labels(max_new_tokens=9),
}


def flat(value: Any) -> list[Any]:
    if isinstance(value, LabelRanking):
        return flat([value.order, value.probabilities, value.text])
    if isinstance(value, list | tuple):
        return [one for each in value for one in flat(each)]
    return [pytest.approx(value, abs=1e-4) if isinstance(value, float) else value]


@pytest.fixture(scope="module")
def dynamic(checkpoint: Path) -> LocalPhi3Vision:
    return LocalPhi3Vision(str(checkpoint), device="cpu", dtype="float32", num_crops=1)


@pytest.fixture(scope="module")
def static(checkpoint: Path) -> tuple[LocalPhi3Vision, Recorder]:
    vlm, gpu = LocalPhi3Vision(str(checkpoint), device="cpu", dtype="float32", num_crops=1), Recorder()
    with vlm._at_work() as engine:
        assert engine.decoder is None  # memory that grows is for CPUs
        engine.decoder = decoder_of(engine._model, gpu)
    return vlm, gpu


@pytest.mark.parametrize("name", CALLS)
def test_the_reranker_gets_the_same(
    name: str, dynamic: LocalPhi3Vision, static: tuple[LocalPhi3Vision, Recorder]
) -> None:
    expected = CALLS[name](dynamic)
    vlm, gpu = static
    before = gpu.replays
    for _ in range(2):
        assert flat(CALLS[name](vlm)) == flat(expected)
    assert gpu.replays > before


# -- on a GPU -------------------------------------------------------------------------------------


@ON_GPU
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_graphs_give_the_plain_logits_on_a_gpu(
    dtype: str, checkpoint: Path, processor: Phi3VisionProcessor, caplog: Any
) -> None:
    """Replayed, launched plainly, and with memory that grows."""
    model = Phi3VisionForConditionalGeneration.from_pretrained(
        checkpoint, dtype=getattr(torch, dtype), device_map="cuda"
    )
    prompt = prompt_of(model, processor, ["one", "only text, and longer"], None, 1)
    assert StaticDecoder.supports(model)
    graphs = StaticDecoder(model)
    plain = StaticDecoder(model, capture=Recorder(fails=True))
    with caplog.at_level(logging.WARNING):
        replayed = PrefilledPrompt(model, prompt, decoder=graphs, room=40)
        launched = PrefilledPrompt(model, prompt, decoder=plain, room=40)
        dynamic = PrefilledPrompt(model, prompt)
        for number, length in enumerate((1, 1, 4, 6, 1, 3, 1, 9, 9)):
            ids = torch.full((2, length), 9 + number)
            found, bare, grown = (each.extend(ids) for each in (replayed, launched, dynamic))
            assert torch.equal(found, bare)
            cosine = torch.cosine_similarity(found.double(), grown.double(), dim=-1)
            assert cosine.min() >= 0.9999
    # Of runs of 1 and of 8: these slots have no room for a run of 64.
    assert {tokens for _, _, tokens in graphs.graphs.graphs} == {1, 8}
    assert [record.getMessage() for record in caplog.records if "not permitted" not in record.msg] == [
        record.getMessage() for record in caplog.records[:1]
    ]


@ON_GPU
@pytest.mark.parametrize("name", CALLS)
def test_the_reranker_gets_the_same_on_a_gpu(name: str, checkpoint: Path, dynamic: LocalPhi3Vision) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    vlm = LocalPhi3Vision(str(checkpoint), device="cuda", dtype="float32", num_crops=1)
    expected = CALLS[name](dynamic)
    for _ in range(3):
        assert flat(CALLS[name](vlm)) == flat(expected)
    with vlm._at_work() as engine:
        assert engine.decoder is not None
        assert engine.decoder.graphs.graphs
