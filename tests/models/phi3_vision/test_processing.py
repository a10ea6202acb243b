from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import phi3_vision_golden as golden
from support.drawing import draw
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionImageProcessor, Phi3VisionProcessor
from llama_index_multimodal_rerank.models.phi3_vision.image_tags import check_tags, image_tag, split_at_tags

RECORDED = golden.read_json("processor_cases.json")
MODEL_PROMPTS = [case for case in golden.cases() if case.get("text") is not None]
PROMPT = "<|user|>\n<|image_1|>\nWhat is shown in this image?<|end|>\n<|assistant|>\n"


@pytest.mark.parametrize("case", RECORDED["prompts"] + MODEL_PROMPTS, ids=lambda case: case["name"])
def test_ids_equal_the_reference(case: dict[str, Any], processor: Phi3VisionProcessor) -> None:
    images = golden.pictures(case["images"])
    out = processor(case["text"], images, num_crops=case["num_crops"])
    expected = golden.expand_runs(case["input_ids_rle"])
    assert len(expected) == case["length"]
    assert out["input_ids"].tolist() == [expected]
    assert out["attention_mask"].tolist() == [[1] * len(expected)]
    if images:
        assert out["pixel_values"].shape == (len(images), case["num_crops"] + 1, 3, 336, 336)
        assert out["image_sizes"].tolist() == case.get("image_sizes_hw", out["image_sizes"].tolist())
    else:
        assert set(out) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("case", RECORDED["tokenize"], ids=lambda case: repr(case["text"]))
def test_tokenize(case: dict[str, Any], processor: Phi3VisionProcessor) -> None:
    assert processor(case["text"])["input_ids"].tolist() == [case["input_ids"]]


@pytest.mark.parametrize("case", RECORDED["decode"], ids=lambda case: repr(case["text"]))
def test_decode(case: dict[str, Any], processor: Phi3VisionProcessor) -> None:
    ids = case["input_ids"]
    assert processor.decode(ids) == case["text"]
    assert processor.decode(torch.tensor(ids), skip_special_tokens=True) == case["text_skip_special"]
    assert processor.batch_decode(np.array([ids])) == [case["text"]]


def test_decode_reads_placeholders_as_unknown(processor: Phi3VisionProcessor) -> None:
    start, *word = processor("Yes")["input_ids"][0].tolist()
    ids = [start, -1, -1, *word]
    assert processor.decode(ids, skip_special_tokens=True) == "Yes"
    assert processor.decode(ids) == processor.tokenizer.decode([start, 0, 0, *word])
    assert processor.post_process_image_text_to_text(torch.tensor([ids])) == ["Yes"]


@pytest.mark.parametrize("case", RECORDED["chat"])
def test_chat(case: dict[str, Any], processor: Phi3VisionProcessor) -> None:
    text = processor.apply_chat_template(
        case["messages"], add_generation_prompt=case["add_generation_prompt"], tokenize=False
    )
    assert text == case["text"]


def test_chat_with_list_contents_numbers_the_pictures(processor: Phi3VisionProcessor) -> None:
    messages = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Which?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "The first."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And now?"}]},
    ]
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == (
        "<|user|>\n<|image_1|>\n<|image_2|>\nWhich?<|end|>\n<|assistant|>\nThe first.<|end|>\n"
        "<|user|>\n<|image_3|>\nAnd now?<|end|>\n<|assistant|>\n"
    )
    with pytest.raises(Exception, match="content type video is not supported"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])


def test_chat_to_model_inputs_in_one_call(processor: Phi3VisionProcessor) -> None:
    image = draw("square")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What is shown in this image?"}]
    messages = [{"role": "user", "content": content}]
    out = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    expected = processor(PROMPT, image)
    assert torch.equal(out["input_ids"], expected["input_ids"])
    assert torch.equal(out["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("case", RECORDED["errors"], ids=lambda case: case["text"])
def test_prompts_the_reference_refuses(case: dict[str, Any], processor: Phi3VisionProcessor) -> None:
    images = golden.pictures(case["images"])
    if case["raises"] is None:
        (image,) = case["images"]
        tokens = RECORDED["images"][image]["by_num_crops"][str(case["num_crops"])]["num_img_tokens"]
        ids = processor(case["text"], images, num_crops=case["num_crops"])["input_ids"]
        assert (ids == -1).sum() == tokens
        return
    with pytest.raises(ValueError, match=r"must contain <\|image_1\|>"):
        processor(case["text"], images, num_crops=case["num_crops"])


def test_a_mismatch_names_what_was_found_and_expected(processor: Phi3VisionProcessor) -> None:
    image = draw("tiny")
    with pytest.raises(
        ValueError,
        match=r"^2 pictures were given, so the prompt must contain <\|image_1\|>, <\|image_2\|>, each "
        r"exactly once; it contains <\|image_3\|>, <\|image_1\|>$",
    ):
        processor("<|image_3|> <|image_1|>", [image, image])
    with pytest.raises(ValueError, match=r"1 picture was given.*it contains <\|image_1\|>, <\|image_1\|>$"):
        processor("<|image_1|> and again <|image_1|>", image)
    with pytest.raises(ValueError, match=r"it contains no image tag$"):
        processor("What is this?", image)


def test_a_tag_without_a_picture_is_text_and_warned_about(
    processor: Phi3VisionProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        processor("<|image_1|> what?")
    assert "contains <|image_1|> but no picture was given" in caplog.text


def test_known_sizes_give_the_same_ids_without_pixels(processor: Phi3VisionProcessor) -> None:
    images = [draw("wide"), draw("square")]
    prompts = ["<|image_2|> or <|image_1|>?", "Nothing to see.", "<|image_1|>"]
    sizes = processor(prompts[0], images)["image_sizes"]
    one = processor(prompts[0], image_sizes=sizes)
    assert torch.equal(one["input_ids"], processor(prompts[0], images)["input_ids"])
    assert torch.equal(one["image_sizes"], sizes)
    assert "pixel_values" not in one

    batch = processor(prompts, image_sizes=[sizes, None, sizes[:1]])
    expected = processor(prompts, [images, None, images[0]])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["image_sizes"], expected["image_sizes"])
    with pytest.raises(ValueError, match="both images and image_sizes"):
        processor(prompts[0], images, image_sizes=sizes)
    with pytest.raises(ValueError, match="multiples of 336"):
        processor("<|image_1|>", image_sizes=[(500, 500)])


def test_batches_are_padded_on_the_left(processor: Phi3VisionProcessor) -> None:
    images = [draw("one tile"), draw("tiny")]
    prompts = ["<|image_1|> and <|image_2|>", "Just text"]
    out = processor(prompts, [images, []], num_crops=1)
    alone = [processor(prompts[0], images, num_crops=1), processor(prompts[1])]
    length = alone[0]["input_ids"].shape[1]
    padding = length - alone[1]["input_ids"].shape[1]
    assert out["input_ids"][0].tolist() == alone[0]["input_ids"][0].tolist()
    pad = processor.tokenizer.pad_token_id
    assert out["input_ids"][1].tolist() == [pad] * padding + alone[1]["input_ids"][0].tolist()
    assert out["attention_mask"].tolist() == [[1] * length, [0] * padding + [1] * (length - padding)]
    assert out["pixel_values"].shape[0] == 2

    (yes,), (nothing,) = (processor(text)["input_ids"].tolist() for text in ("Yes", ""))
    fixed = processor("Yes", padding="max_length", max_length=len(yes) + 3)
    assert fixed["input_ids"].tolist() == [[pad] * 3 + yes]
    multiple = processor("Yes", pad_to_multiple_of=len(yes) + 2)["input_ids"]
    assert multiple.tolist() == [[pad] * 2 + yes]
    lists = processor(["Yes", ""], padding=False, return_tensors=None)
    assert lists["input_ids"] == [yes, nothing]


@pytest.mark.parametrize(
    ("text", "images", "error", "message"),
    [
        (["a", "b"], draw("tiny"), ValueError, "list of 2 prompts, so images must be a list"),
        (["a", "b"], [draw("tiny")], ValueError, "one entry per prompt.*got 1 entries"),
        (PROMPT, np.zeros((4, 4, 3), np.uint8), TypeError, "got ndarray"),
        (3, None, TypeError, "int"),
        ([b"abc"], None, TypeError, "text must be a string.*got bytes"),
        ([], None, ValueError, "empty list"),
        (PROMPT, Image.new("RGB", (9000, 1)), ValueError, "9000x1 pixels"),
    ],
)
def test_wrong_arguments(
    text: Any, images: Any, error: type[Exception], message: str, processor: Phi3VisionProcessor
) -> None:
    with pytest.raises(error, match=message):
        processor(text, images)


def test_zero_crops_and_videos_are_refused(processor: Phi3VisionProcessor) -> None:
    with pytest.raises(ValueError, match="num_crops is 0"):
        processor(PROMPT, draw("tiny"), num_crops=0)
    with pytest.raises(ValueError, match="videos and audio are not supported"):
        processor("Yes", videos=[1])


def test_a_tokenizer_of_another_class_is_refused() -> None:
    wrong = LlamaTokenizer.from_pretrained(golden.GOLDEN / "tokenizer")
    with pytest.raises(TypeError, match=r"is a LlamaTokenizer.*PreTrainedTokenizerFast"):
        Phi3VisionProcessor(Phi3VisionImageProcessor(), wrong)


def test_save_load_and_pickle(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    processor = Phi3VisionProcessor(Phi3VisionImageProcessor(num_crops=3), tokenizer)
    processor.save_pretrained(tmp_path)
    image = draw("palette")
    expected = processor(PROMPT, image)
    for again in (
        Phi3VisionProcessor.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(processor)),
    ):
        assert type(again.tokenizer) is PreTrainedTokenizerFast
        assert again.chat_template == processor.chat_template
        found = again(PROMPT, image)
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in expected.items()
        }
    changed = Phi3VisionProcessor.from_pretrained(tmp_path, num_crops=1)
    assert changed.image_processor.num_crops == 1
    assert "num_crops" not in changed.tokenizer.init_kwargs


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    pieces=st.lists(texts, min_size=1, max_size=5),
    numbers=st.lists(st.integers(0, 99), min_size=4, max_size=4),
)
def test_splitting_finds_exactly_the_tags(pieces: list[str], numbers: list[int]) -> None:
    pieces = [piece.replace("<|image_", "") for piece in pieces]
    numbers = numbers[: len(pieces) - 1]
    prompt = pieces[0] + "".join(
        image_tag(number) + piece for number, piece in zip(numbers, pieces[1:], strict=True)
    )
    assert split_at_tags(prompt) == (pieces, numbers)


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(0, 5))
def test_only_permutations_of_the_pictures_pass(numbers: list[int], num_images: int) -> None:
    if sorted(numbers) == [*range(1, num_images + 1)]:
        check_tags(numbers, num_images)
    else:
        with pytest.raises(ValueError, match="must contain"):
            check_tags(numbers, num_images)
