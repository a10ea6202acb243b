"""A folder with a complete tiny Phi-3 Vision: seeded weights, tokenizer, image processor."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionImageProcessor, Phi3VisionProcessor

from .phi3_vision_golden import GOLDEN, write_tiny_checkpoint


def write_folder(folder: Path) -> Path:
    """Write the model into a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = write_tiny_checkpoint(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(GOLDEN / "tokenizer")
    Phi3VisionProcessor(Phi3VisionImageProcessor(), tokenizer).save_pretrained(folder)
    return folder
