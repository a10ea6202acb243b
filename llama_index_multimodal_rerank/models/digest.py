"""A digest that tells one set of weights from another, whatever file they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

# Elements that are hashed in one type; every digest depends on it.
_CHUNK = 2**22
# Elements that are converted at a time, few, to need no second copy of a large table.
_PIECE = 2**17


def weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 over names, shapes and values of tensors.

    It depends on the values alone, not on their dtype, their order or the file format: float16 weights and
    the same weights widened to float32 give the same digest.

    Args:
        tensors: floating point tensors by name, on the CPU.

    Returns:
        64 hexadecimal digits.
    """
    names = sorted(tensors)
    with ThreadPoolExecutor() as pool:  # hashlib and torch let other threads run
        digests = pool.map(lambda name: tensor_digest(tensors[name]), names)
        return combined_digest(
            {name: (tensors[name].shape, digest) for name, digest in zip(names, digests, strict=True)}
        )


def combined_digest(digests: Mapping[str, tuple[Sequence[int], str]]) -> str:
    """Return what :func:`weights_digest` does, of tensors that were digested one by one.

    Args:
        digests: shape and :func:`tensor_digest` of every tensor, by name.
    """
    lines = [f"{name} {list(shape)} {digest}\n" for name, (shape, digest) in sorted(digests.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the SHA-256 over the values of one tensor, on the CPU; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in torch.split(tensor.flatten(), _CHUNK):
        pieces = torch.split(chunk, _PIECE)
        # The shortest type that holds the values: half the bytes to hash for the released weights.
        is_half = all(torch.equal(piece.half().float(), piece.float()) for piece in pieces)
        for piece in pieces:
            digest.update((piece.half() if is_half else piece.float()).numpy().data)
    return digest.hexdigest()
