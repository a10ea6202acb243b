"""What goes into the local model: whole checkpoints, the right features, and words that are only words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore, TextNode
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tiny_phi3_vision import write_folder

from llama_index_multimodal_rerank import LocalPhi3Vision, ModelCallError, Phi3VisionRerank
from llama_index_multimodal_rerank.vlm.control_tokens import ControlTokens
from llama_index_multimodal_rerank.vlm.protocols import ImagePrompt, RankRequest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny-phi3"))


@pytest.fixture(scope="module")
def vlm(checkpoint: Path) -> LocalPhi3Vision:
    return LocalPhi3Vision(str(checkpoint), device="cpu", dtype="float32", num_crops=1)


# -- checkpoints ------------------------------------------------------------------------------

LAYER = "model.layers.1.mlp.down_proj.weight"


def rewritten(folder: Path, change: object) -> LocalPhi3Vision:
    tensors = load_file(write_folder(folder) / "model.safetensors")
    change(tensors)  # type: ignore[operator]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return LocalPhi3Vision(str(folder), device="cpu", dtype="float32", num_crops=1)


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[LAYER][0, 0] = float("nan")


def set_infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"][0, 0] = float("inf")


DAMAGES = {
    "one missing": (lambda tensors: tensors.pop(LAYER), rf"missing keys \(1\):\n  {LAYER}\n"),
    "the head missing": (
        lambda tensors: tensors.pop("lm_head.weight"),
        r"missing keys \(1\):\n  lm_head\.weight",
    ),
    "a part missing": (
        lambda tensors: [tensors.pop(key) for key in list(tensors) if ".img_projection." in key],
        r"missing keys \(4\):\n  model\..*img_projection\.0\.bias\n  .*img_projection\.0\.weight\n",
    ),
    "all missing": (
        lambda tensors: [tensors.pop(key) for key in list(tensors) if key != LAYER],
        r"missing keys \(\d\d\)",
    ),
    "another name": (
        lambda tensors: tensors.update({"model.layers.1.mlp.down.weight": tensors.pop(LAYER)}),
        rf"missing keys \(1\):\n  {LAYER}\nunexpected keys \(1\):\n  model\.layers\.1\.mlp\.down\.weight\n",
    ),
    "another shape": (
        lambda tensors: tensors.update({LAYER: torch.zeros(3, 2)}),
        rf"wrong shapes \(1\):\n  {LAYER} is \(3, 2\), expected \(\d+, \d+\)\n",
    ),
    "NaN": (set_nan, rf"not finite in torch\.float32\.\nkeys \(1\):\n  {LAYER}\n"),
    "infinite": (set_infinite, r"not finite in torch\.float32\.\nkeys \(1\):\n  lm_head\.weight\n"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_ranks_nothing(tmp_path: Path, change: object, message: str) -> None:
    model = rewritten(tmp_path / "checkpoint", change)
    hits = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in ("a", "b")]

    with pytest.raises(ValueError, match=message) as error:
        Phi3VisionRerank(model=model, on_error="keep_order").postprocess_nodes(hits, query_str="red")
    assert str(tmp_path / "checkpoint") in str(error.value)


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_a_weights_file_cut_short(tmp_path: Path, size: int) -> None:
    weights = write_folder(tmp_path / "checkpoint") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a weights file of .*checkpoint' is damaged") as error:
        LocalPhi3Vision(str(tmp_path / "checkpoint"), device="cpu", dtype="float32", num_crops=1).load()
    assert type(error.value) is ValueError


REFUSED = "expected a whole number from 1 to|checkpoint' cannot be loaded"
SPOILT = {
    "layers": ("config.json", ("num_hidden_layers",), 10**9, "num_hidden_layers=1000000000; expected"),
    "layers of the tower": (
        "config.json",
        ("vision_config", "num_hidden_layers"),
        10**9,
        r"vision_config\.num_hidden_layers=1000000000; expected",
    ),
    "width": ("config.json", ("hidden_size",), -1, REFUSED),
    "rows": ("config.json", ("vocab_size",), 10**9, REFUSED),
    "heads": ("config.json", ("vision_config", "num_attention_heads"), -1, REFUSED),
    "activation": ("config.json", ("hidden_act",), 3, REFUSED),
    "positions": ("config.json", ("max_position_embeddings",), None, REFUSED),
    "tower": ("config.json", ("vision_config",), 7, REFUSED),
    "mean": ("processor_config.json", ("image_processor", "image_mean"), None, REFUSED),
    "token": ("tokenizer_config.json", ("eos_token",), 7, REFUSED),
}


@pytest.mark.parametrize(("name", "path", "value", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_configuration(
    tmp_path: Path, name: str, path: tuple[str, ...], value: object, message: str
) -> None:
    file = write_folder(tmp_path / "checkpoint") / name
    data = part = json.loads(file.read_text())
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    file.write_text(json.dumps(data))

    with pytest.raises(ValueError, match=message):
        LocalPhi3Vision(str(tmp_path / "checkpoint"), device="cpu", dtype="float32", num_crops=1).load()


def test_weights_that_a_dtype_cannot_hold(tmp_path: Path) -> None:
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        tensors[LAYER][0, 0] = 70_000.0

    folder = tmp_path / "checkpoint"
    rewritten(folder, grow).load()
    with pytest.raises(ValueError, match=rf"(?s)not finite in torch\.float16.*{LAYER}.*take bfloat16"):
        LocalPhi3Vision(str(folder), device="cpu", dtype="float16", num_crops=1).load()


def test_numbers_that_fail_on_the_way_are_an_error(tmp_path: Path) -> None:
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][:] = 3e38
        tensors["lm_head.weight"][:] *= 1e3

    model = rewritten(tmp_path / "checkpoint", grow)
    hits = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in ("a", "b")]
    for strategy in ("listwise", "first_token"):
        rerank = Phi3VisionRerank(model=model, strategy=strategy, explain=False)  # type: ignore[arg-type]
        with pytest.raises(ModelCallError, match=r"not finite in torch\.float32; set dtype to"):
            rerank.postprocess_nodes(hits, query_str="x")


# -- features ---------------------------------------------------------------------------------


def test_pictures_that_differ_in_their_palette_only_have_features_of_their_own(vlm: LocalPhi3Vision) -> None:
    red = Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).convert("P")
    blue = red.copy()
    red.putpalette([250, 0, 0] * 256)
    blue.putpalette([0, 0, 250] * 256)
    assert red.tobytes() == blue.tobytes()

    def logits(picture: Image.Image) -> list[float]:
        return vlm.label_logprobs([RankRequest((picture,), "Which?", 4)])[0]

    assert logits(red) == pytest.approx(logits(red.convert("RGB")), abs=1e-5)
    assert logits(blue) == pytest.approx(logits(blue.convert("RGB")), abs=1e-5)
    assert logits(red) != pytest.approx(logits(blue), abs=1e-5)


def test_features_are_of_the_tiles_that_were_asked_for(checkpoint: Path) -> None:
    model = LocalPhi3Vision(str(checkpoint), device="cpu", dtype="float32", num_crops=4, caption_num_crops=1)
    picture = Image.effect_noise((64, 48), 90).convert("RGB")
    with model._at_work() as engine:
        sizes = [tuple(engine.prompts.encode(picture, crops)[1]) for crops in (1, 4, 1)]
    assert sizes == [(336, 336), (672, 672), (336, 336)]


def test_sheets_are_seen_in_all_tiles_and_other_pictures_in_those_of_captions(checkpoint: Path) -> None:
    model = LocalPhi3Vision(str(checkpoint), device="cpu", dtype="float32", num_crops=4, caption_num_crops=1)
    picture = Image.effect_noise((672, 672), 90).convert("RGB")
    patches = model.load().model.model.vision_embed_tokens.tower.embeddings.patch_embedding
    seen = []
    with patches.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0]))):
        for prompt in (ImagePrompt((picture,), "Why?"), RankRequest((picture,), "Why?", 1)):
            model.generate_batch([prompt], max_new_tokens=1)
    assert seen == [1 + 1, 4 + 1]  # each with a view of the whole


# -- control tokens ---------------------------------------------------------------------------


def added_ids(vlm: LocalPhi3Vision) -> dict[int, str]:
    vocabulary = vlm.load().processor.tokenizer.get_added_vocab()
    return {number: token for token, number in vocabulary.items()}


def ids_of_words(vlm: LocalPhi3Vision, words: str) -> list[int]:
    """The ids of control tokens in a prompt, without those of the frame around the words."""

    def controls(prompt: str) -> list[int]:
        with vlm._at_work() as engine:
            text = engine.prompts.chat(RankRequest((), prompt, 1))
        ids = vlm.load().processor(text=text, return_tensors=None)["input_ids"][0]
        return [number for number in ids if number in added_ids(vlm)]

    left = controls(words)
    for number in controls(""):
        left.remove(number)
    return left


def test_every_added_token_of_the_tokenizer_is_only_a_word(vlm: LocalPhi3Vision) -> None:
    tokens = added_ids(vlm).values()
    assert {"</s>", "<s>", "<unk>", "<|end|>", "<|image|>", "<|placeholder7|>"} <= set(tokens)
    for token in tokens:
        assert ids_of_words(vlm, f"a{token}b {token} {token}{token}") == []
    assert ids_of_words(vlm, "".join(tokens)) == []


@given(
    st.lists(
        st.sampled_from(["<", "/", "s", ">", " ", "</s>", "<s>", "<unk>", "un", "k>", "|", "<|end|>", "\n"])
    )
)
def test_no_words_make_a_control_token(vlm: LocalPhi3Vision, pieces: list[str]) -> None:
    assert ids_of_words(vlm, "".join(pieces)) == []


def test_other_words_stay_as_they_are(vlm: LocalPhi3Vision) -> None:
    words = ControlTokens(vlm.load().processor.tokenizer)
    for text in ("a < b > c", "[1] > [2]", "x</ s>", "1 <= 2 | 3", "<p>"):
        assert words.broken(text) == text
    assert words.broken("a</s>b<s><|image_1|>") == "a< /s>b< s>< |image_1|>"
