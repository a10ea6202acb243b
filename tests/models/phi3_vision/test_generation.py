from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch
from support import phi3_vision_golden as golden
from support.drawing import draw
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    TextIteratorStreamer,
    pipeline,
)

from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionForConditionalGeneration,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.models.phi3_vision.cache_argument import output_cache

CaseInputs = Callable[[dict[str, Any]], dict[str, Any]]
CHECKED = [case for case in golden.cases() if case["checks"]["generation"]]
PROMPT = "<|user|>\n<|image_1|>\nWhat is shown in this image?<|end|>\n<|assistant|>\n"


def greedy(model: Any, inputs: dict[str, Any], tokens: int = 24, **options: Any) -> list[list[int]]:
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("case", CHECKED, ids=lambda case: case["name"])
def test_greedy_tokens_equal_the_reference(
    case: dict[str, Any], cache: str, load_tiny: Any, case_inputs: CaseInputs
) -> None:
    model = load_tiny(case["config_overrides"])
    tokens = len(case["generated"])
    assert greedy(model, case_inputs(case), tokens, cache_implementation=cache) == [case["generated"]]


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_growing_past_the_original_context(
    options: dict[str, Any], load_tiny: Any, case_inputs: CaseInputs
) -> None:
    """With or without cache: all keys turn to the long factors, as in the reference without cache."""
    case = golden.crossing_case()
    arrays = golden.read_arrays("golden_tiny.npz")
    model = load_tiny(case["config_overrides"])
    out = model.generate(
        **case_inputs(case),
        max_new_tokens=len(case["generated"]),
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )
    assert out.sequences[0, case["length"] :].tolist() == case["generated_without_cache"]
    expected = arrays[f"{case['name']}/scores_without_cache"]
    assert golden.worst(torch.cat(out.logits), expected) <= 2e-5
    # Up to the crossing the reference's own cache gives the same.
    until = case["config_overrides"]["original_max_position_embeddings"] - case["length"] + 1
    assert golden.worst(torch.cat(out.logits)[:until], arrays[f"{case['name']}/scores"][:until]) <= 2e-5


def test_crossing_in_a_batch_and_with_beams_equals_one_by_one(
    load_tiny: Any, processor: Phi3VisionProcessor
) -> None:
    length = processor(PROMPT, draw("one tile"), num_crops=1)["input_ids"].shape[1]
    model = load_tiny({"original_max_position_embeddings": length + 8})
    prompts = [PROMPT, "<|image_1|> " + "some more words " * 3, "Only text"]
    images = [draw("one tile"), draw("tiny"), None]
    batch = processor(prompts, images, num_crops=1)
    for options in ({}, {"cache_implementation": "static"}, {"num_beams": 3}):
        together = greedy(model, batch, **options)
        alone = [
            greedy(model, processor(prompt, image, num_crops=1), **options)[0]
            for prompt, image in zip(prompts, images, strict=True)
        ]
        assert together == alone, options


def test_a_left_padded_batch_with_several_pictures_equals_one_by_one(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    prompts = ["<|image_2|> before <|image_1|>?", "Only text", "<|image_1|> what?"]
    names = [["tiny", "palette"], [], ["one tile"]]
    images = [[draw(name) for name in own] for own in names]
    batch = processor(prompts, images, num_crops=1)
    together = greedy(model, batch)
    alone = [
        greedy(model, processor(prompt, own, num_crops=1))[0]
        for prompt, own in zip(prompts, images, strict=True)
    ]
    assert together == alone


def test_beams_keep_every_prompts_own_pictures(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    prompts = ["<|image_1|> or <|image_2|>?", "<|image_1|> what?"]
    images = [[draw("tiny"), draw("palette")], [draw("one tile")]]
    together = greedy(model, processor(prompts, images, num_crops=1), num_beams=3, tokens=8)
    for row in range(2):
        alone = processor(prompts[row], images[row], num_crops=1)
        # transformers itself repeats embeddings for the beams, with the pictures already in them.
        features = model.get_image_features(alone["pixel_values"], alone["image_sizes"])
        embeds = model.model.embed(alone["input_ids"], features).detach()
        out = model.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False, num_beams=3)
        assert [together[row]] == out.tolist()


def test_one_sheet_asked_twice_is_encoded_once(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    """Caption by generate, then a ranking by the logits of the labels, on the same features."""
    encoded = []
    handle = model.model.vision_embed_tokens.register_forward_hook(lambda *_: encoded.append(1))
    try:
        first = processor(PROMPT, draw("square"), num_crops=4)
        features = model.get_image_features(first["pixel_values"], first["image_sizes"])
        ids = {name: first[name] for name in ("input_ids", "attention_mask")}
        caption = greedy(model, ids, image_features=features)
        question = PROMPT.replace("What is shown in this image?", "Rank the cells, best first.")
        second = processor(question, image_sizes=first["image_sizes"])
        with torch.no_grad():
            logits = model(**second, image_features=features, logits_to_keep=1).logits[0, -1]
        assert len(encoded) == 1
    finally:
        handle.remove()
    assert caption == greedy(model, first)
    with torch.no_grad():
        inline = model(**processor(question, draw("square"), num_crops=4)).logits[0, -1]
    # The head multiplied one row here and all rows there.
    assert (logits - inline).abs().max() <= golden.SAME_LOGITS


class OnlyThese(LogitsProcessor):
    """Let nothing but the given ids through, and record what is seen of the sequence."""

    def __init__(self, allowed: list[int]) -> None:
        self.allowed = allowed
        self.seen: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(input_ids)
        mask = torch.full_like(scores, -torch.inf)
        mask[:, self.allowed] = 0
        return scores + mask


def test_a_logits_processor_constrains_the_answer_and_sees_no_negative_ids(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    allowed = processor.tokenizer.convert_tokens_to_ids(["<0x41>", "<0x42>"])
    constraint = OnlyThese(allowed)
    (answer,) = greedy(model, inputs, tokens=5, logits_processor=LogitsProcessorList([constraint]))
    assert set(answer) <= set(allowed)
    length = inputs["input_ids"].shape[1]
    assert [seen.shape[1] for seen in constraint.seen] == [length + i for i in range(5)]
    prompt = constraint.seen[0]
    assert torch.equal(prompt, inputs["input_ids"].clamp(min=0))


def test_processors_that_look_up_the_prompts_ids_work(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    """A penalty and stop strings look up the prompt's ids in the vocabulary, where -1 is out of range."""
    inputs = processor("<|image_1|>?", draw("one tile"), num_crops=1)
    plain = greedy(model, inputs)
    penalised = greedy(model, inputs, repetition_penalty=5.0)
    assert penalised != plain
    stopped = model.generate(
        **inputs, max_new_tokens=24, do_sample=False, stop_strings=["zzzzzz"], tokenizer=processor.tokenizer
    )
    assert stopped[:, inputs["input_ids"].shape[1] :].tolist() == plain


@pytest.mark.parametrize("skip_prompt", [True, False])
def test_streaming(
    skip_prompt: bool, model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    (answer,) = greedy(model, inputs)
    streamer = TextIteratorStreamer(
        processor.tokenizer, skip_prompt=skip_prompt, timeout=60, skip_special_tokens=True
    )
    thread = Thread(
        target=model.generate,
        kwargs={**inputs, "max_new_tokens": 24, "do_sample": False, "streamer": streamer},
    )
    thread.start()
    text = "".join(streamer)
    thread.join()
    whole = answer if skip_prompt else [*inputs["input_ids"].clamp(min=0)[0].tolist(), *answer]
    assert text == processor.decode(whole, skip_special_tokens=True)


class StopAfter(StoppingCriteria):
    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


def test_returned_sequences_can_be_decoded_as_they_are(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    stop = StopAfter(inputs["input_ids"].shape[1] + 3)
    out = model.generate(**inputs, max_new_tokens=24, do_sample=False, stopping_criteria=[stop])
    assert out.shape == (1, stop.length)
    assert out.min() >= 0
    assert processor.tokenizer.batch_decode(out, skip_special_tokens=True)[0].startswith("\n")


def test_positional_ids_sampling_and_several_answers(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    ids = inputs.pop("input_ids")
    torch.manual_seed(0)
    out = model.generate(ids, **inputs, max_new_tokens=3, do_sample=True, num_return_sequences=2)
    assert out.shape == (2, ids.shape[1] + 3)
    assert out[0, -3:].tolist() != out[1, -3:].tolist()
    with pytest.raises(ValueError, match="both inputs and input_ids"):
        model.generate(ids, input_ids=ids)


def test_a_second_turn_on_a_kept_cache_equals_starting_over(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    images = [draw("one tile"), draw("tiny")]
    first = processor("<|image_1|> what?", images[0], num_crops=1)
    both = processor("<|image_1|> what?<|end|>\n<|image_2|> and this?", images, num_crops=1)
    features = model.get_image_features(both["pixel_values"], both["image_sizes"])
    cache = output_cache(
        model.generate(**first, max_new_tokens=1, do_sample=False, return_dict_in_generate=True)
    )
    assert cache.get_seq_length() == first["input_ids"].shape[1]
    assert torch.equal(both["input_ids"][:, : cache.get_seq_length()], first["input_ids"])
    ids = {name: both[name] for name in ("input_ids", "attention_mask")}
    continued = greedy(model, ids, image_features=features, cache=cache)
    assert continued == greedy(model, both)


def test_prompt_lookup_decoding_equals_plain_decoding(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    plain = greedy(model, inputs)
    assert 2 not in plain[0]
    assert greedy(model, inputs, prompt_lookup_num_tokens=3, eos_token_id=2) == plain


def test_generate_from_embeddings(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    embeds = model.model.embed(inputs["input_ids"], features).detach()
    out = model.generate(inputs_embeds=embeds, max_new_tokens=24, do_sample=False)
    assert out.tolist() == greedy(model, inputs)


def test_growing_past_the_original_context_from_embeddings_keeps_the_cached_rotation(
    load_tiny: Any, case_inputs: CaseInputs
) -> None:
    """A prompt that came as embeddings cannot be run again, so this equals the reference with its cache."""
    case = golden.crossing_case()
    model = load_tiny(case["config_overrides"])
    inputs = case_inputs(case)
    features = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    embeds = model.model.embed(inputs["input_ids"], features).detach()
    out = model.generate(inputs_embeds=embeds, max_new_tokens=len(case["generated"]), do_sample=False)
    assert out.tolist() == [case["generated"]]
    with_ids = {"input_ids": inputs["input_ids"].clamp(min=0), "inputs_embeds": embeds}
    assert greedy(model, with_ids, len(case["generated"])) == [case["generated"]]


def test_inputs_that_do_not_fit_are_refused(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    inputs = processor(PROMPT, draw("one tile"), num_crops=1)
    ids, sizes, pixels = (inputs[name] for name in ("input_ids", "image_sizes", "pixel_values"))
    features = model.get_image_features(pixels, sizes)
    with pytest.raises(ValueError, match="0 pictures were given, but input_ids refers to 1"):
        model.generate(ids)
    with pytest.raises(ValueError, match="2 pictures were given, but input_ids refers to 1"):
        model.generate(ids, image_features=[*features, *features])
    with pytest.raises(ValueError, match="pixel_values was given without image_sizes"):
        model.generate(ids, pixel_values=pixels)
    with pytest.raises(ValueError, match="both pixel_values and image_features"):
        model.generate(ids, pixel_values=pixels, image_sizes=sizes, image_features=features)
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        model.generate(ids, image_features=features, prefill_chunk_size=64)
    with pytest.raises(ValueError, match="without input_ids"):
        model.generate(inputs_embeds=torch.zeros(1, 2, model.config.hidden_size), image_features=features)


def test_the_image_text_pipeline_of_transformers(
    model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor
) -> None:
    image = draw("one tile")
    # without a device it would move the model, which other tests share, to a GPU
    chat = pipeline("image-text-to-text", model=model, processor=processor, device="cpu")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What is shown in this image?"}]
    (answer,) = chat(
        text=[{"role": "user", "content": content}],
        max_new_tokens=24,
        return_full_text=False,
        generate_kwargs={"do_sample": False},
    )
    expected = greedy(model, processor(PROMPT, image))[0]
    assert answer["generated_text"] == processor.decode(expected, skip_special_tokens=True)
