"""A tiny Phi-3 Vision: the architecture of the released model, with 3 instead of 4,147 million parameters."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES, Look
from llama_index_multimodal_rerank.demo.queries import (
    KIND_WORDS,
    SOURCES,
    SURFACE_WORDS,
    all_wordings,
    describe,
)
from llama_index_multimodal_rerank.models.phi3_vision import (
    Phi3VisionConfig,
    Phi3VisionForConditionalGeneration,
    Phi3VisionImageProcessor,
    Phi3VisionProcessor,
)
from llama_index_multimodal_rerank.models.phi3_vision.loading import load_checkpoint
from llama_index_multimodal_rerank.reranking.prompts import (
    DEFAULT_CAPTION_PROMPT,
    DEFAULT_RANK_PROMPT,
    describe_query,
    list_format,
)

from .sheets import NUM_CROPS, PATCHES_PER_SIDE

SPECIAL_TOKENS = (
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|assistant|>",
    "<|user|>",
    "<|system|>",
    "<|end|>",
)
PLACES = 0.25
"""Size of the position embeddings at first, beside about 0.5 of the patches'. At the usual 0.02 they drown,
and which cell a patch belongs to can hardly be told behind the tower."""

MERGED_WORDS = 500
"""Words and pieces of words beside the 256 bytes."""

_TOWER = re.compile(r"(\.img_processor\.)(?!vision_model\.)")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer on everything that is said to and by the demo's reranker."""
    tokenizer = Tokenizer(BPE())
    # Digits stand alone, so that a label is one token.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=len(SPECIAL_TOKENS) + 256 + MERGED_WORDS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106 (no password)
        eos_token="<|endoftext|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        padding_side="left",
    )


def _texts() -> list[str]:
    words = [word for words in (*KIND_WORDS.values(), *SURFACE_WORDS.values()) for word in words]
    nouns = [*words, *SOURCES.values(), *COLOURS, *KINDS, *SURFACES]
    looks = [Look(kind, surface, colour) for kind in KINDS for surface in SURFACES for colour in COLOURS]
    prompts = [
        DEFAULT_RANK_PROMPT.template,
        DEFAULT_CAPTION_PROMPT.template,
        *(list_format(explain=explain, declared=False) for explain in (True, False)),
        describe_query("", has_picture=True, caption="a"),
        describe_query("a", has_picture=True, caption=None),
        describe_query("a", has_picture=False, caption=None),
        "Reason: [1] is what was asked for: a. [1] comes closest: a.",
    ]
    return [*(f" {noun}" for noun in nouns * 20), *all_wordings() * 5, *map(describe, looks), *prompts * 20]


def make_config(tokenizer: PreTrainedTokenizerFast) -> Phi3VisionConfig:
    """Return the configuration: the released one, made small."""
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    return Phi3VisionConfig(
        vision_config={
            "hidden_act": "quick_gelu",
            "hidden_size": 128,
            "image_size": 336,
            "intermediate_size": 512,
            "layer_norm_eps": 1e-5,
            "num_attention_heads": 4,
            "num_channels": 3,
            "num_hidden_layers": 5,  # the last one is not used by this architecture
            "patch_size": 14,
            "projection_dim": 64,
        },
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        vocab_size=len(tokenizer),
        rope_theta=1e6,  # slow enough for what is said of places hundreds of tokens away
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, end],
        pad_token_id=tokenizer.pad_token_id,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attention_dropout=0.0,
        tie_word_embeddings=False,
    )


def make_model() -> tuple[Phi3VisionForConditionalGeneration, Phi3VisionProcessor]:
    """Return a model with random weights, but for its patches' places, and its processor."""
    tokenizer = make_tokenizer()
    model = Phi3VisionForConditionalGeneration(make_config(tokenizer))
    places = model.model.vision_embed_tokens.tower.embeddings.position_embedding.weight
    with torch.no_grad():
        places[1:] = PLACES * torch.from_numpy(row_and_column(places.shape[1])).to(places)
    return model, Phi3VisionProcessor(Phi3VisionImageProcessor(num_crops=NUM_CROPS), tokenizer)


def row_and_column(width: int) -> npt.NDArray[np.float64]:
    """Return sines and cosines of every patch's row and column, (576, width); as in arXiv 2205.01580."""
    speeds = 100.0 ** -np.linspace(0, 1, width // 4, endpoint=False)
    angles = np.arange(PATCHES_PER_SIDE)[:, None] * speeds
    code = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (24, width / 2)
    rows, columns = np.repeat(code, PATCHES_PER_SIDE, axis=0), np.tile(code, (PATCHES_PER_SIDE, 1))
    return np.concatenate([rows, columns], axis=1)


def load(folder: str, device: torch.device) -> tuple[Phi3VisionForConditionalGeneration, Phi3VisionProcessor]:
    """Return a model that was saved, in float32, and its processor."""
    model = load_checkpoint(folder, device=device, dtype=torch.float32)
    return model, Phi3VisionProcessor.from_pretrained(folder)


def save(model: Phi3VisionForConditionalGeneration, processor: Phi3VisionProcessor, folder: Path) -> None:
    """Write model and processor in the released layout, weights as float16.

    A model that was not loaded from a file would be written with the names of its modules. Newer releases of
    transformers leave out the tower's ``vision_model`` level, and older ones then find no weights for it.
    """
    half = copy.deepcopy(model).to(torch.float16)
    weights = {_TOWER.sub(r"\1vision_model.", name): tensor for name, tensor in half.state_dict().items()}
    half.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
