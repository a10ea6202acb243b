"""The files of a BGE-M3 checkpoint: which there must be, and how each is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..errors import CheckpointError
from ..serialization import read_weights

SPARSE_HEAD = "sparse_linear.pt"
COLBERT_HEAD = "colbert_linear.pt"

# One file of each group must be there. transformers makes an empty tokenizer where it finds no tokenizer
# files, and FlagEmbedding two random heads where one of the two is missing: neither says so.
_WANTED = (
    ("config.json",),
    (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    ("tokenizer.json", "sentencepiece.bpe.model"),
    (SPARSE_HEAD,),
    (COLBERT_HEAD,),
)


def check_checkpoint(folder: Path) -> None:
    """Check what transformers and FlagEmbedding would pass over in silence.

    Args:
        folder: the checkpoint.

    Raises:
        FileNotFoundError: files are missing; the message names all of them.
        CheckpointError: ``config.json``, ``sparse_linear.pt`` or ``colbert_linear.pt`` is damaged, or the
            sparse layer does not fit the model.
    """
    missing = [
        " or ".join(names) for names in _WANTED if not any((folder / name).is_file() for name in names)
    ]
    if missing:
        raise FileNotFoundError(
            f"{str(folder)!r} is not a complete BGE-M3 checkpoint: {' and '.join(missing)} missing. "
            "Pass 'BAAI/bge-m3' or a folder with all of its files."
        )
    read_weights(folder / COLBERT_HEAD)
    read_sparse_linear(folder)


def read_sparse_linear(folder: Path) -> nn.Linear:
    """Read the layer that makes a weight of each token's last hidden state, without unpickling objects.

    Args:
        folder: the checkpoint.

    Returns:
        The layer in float32 on the CPU; weight (1, hidden size), bias (1,).

    Raises:
        CheckpointError: ``sparse_linear.pt`` or ``config.json`` is damaged, or they do not fit each other.
    """
    with checkpoint_errors(folder):
        # said aloud, because by default transformers asks on the terminal whether to run a checkpoint's code
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        hidden_size = int(config.hidden_size)
    tensors = read_weights(folder / SPARSE_HEAD)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    expected = {"weight": (1, hidden_size), "bias": (1,)}
    if shapes != expected:
        raise CheckpointError(
            f"{folder / SPARSE_HEAD} holds {shapes}; config.json beside it asks for {expected}. "
            "Take both files from one checkpoint."
        )
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise CheckpointError(
            f"{folder / SPARSE_HEAD} holds numbers that are not finite. Delete it and download it again."
        )
    linear = nn.Linear(hidden_size, 1, dtype=torch.float32)
    linear.load_state_dict(tensors)
    return linear


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with the ids that ``tokenizer.json`` gives whatever the release of transformers.

    Args:
        folder: the checkpoint.

    Raises:
        CheckpointError: a file is damaged.
    """
    # The class that AutoTokenizer takes for XLM-RoBERTa builds its own normaliser in transformers 5.0 to 5.2,
    # and full-width letters, ligatures or an ellipsis get other ids. The special tokens' names are in
    # tokenizer_config.json alone, so the plain class needs both files.
    plain = all((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    loader = PreTrainedTokenizerFast if plain else AutoTokenizer
    with checkpoint_errors(folder):
        tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(folder, local_files_only=True)
    return tokenizer


@contextmanager
def checkpoint_errors(folder: Path) -> Iterator[None]:
    """Turn whatever fails inside into a :class:`CheckpointError` that names the folder."""
    try:
        yield
    # transformers, tokenizers, safetensors and pickle have no common type for a damaged file, and most of
    # their messages do not say which file it is
    except Exception as error:
        raise CheckpointError(
            f"The BGE-M3 checkpoint in {folder} cannot be loaded ({type(error).__name__}: {error}). If one "
            "of its files is damaged, delete it and download it again."
        ) from error
