"""A checkpoint as a model, or an error that lists what is wrong with it.

``from_pretrained`` fills tensors that a file lacks with random numbers and goes on with a warning. A model on
random weights answers like one that has learnt, so here it is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import safetensors
import torch

from .configuration_phi3_vision import Phi3VisionConfig
from .modeling_phi3_vision import Phi3VisionForConditionalGeneration

_LARGEST = {
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "max_position_embeddings": 2**24,
    "num_attention_heads": 2**10,
    "num_channels": 3,
    "num_hidden_layers": 2**10,
    "num_key_value_heads": 2**10,
    "vocab_size": 2**20,
}


def load_checkpoint(
    name_or_path: str, *, device: torch.device, dtype: torch.dtype, **hub: Any
) -> Phi3VisionForConditionalGeneration:
    """Load a model, every tensor of which is in the checkpoint, of the right shape, and finite.

    Args:
        name_or_path: name on the hub or local folder.
        device: where the model goes.
        dtype: floating point type of its parameters.
        **hub: arguments of ``from_pretrained``, such as ``revision``.

    Raises:
        OSError: the checkpoint is not there.
        ValueError: it does not fit, or holds numbers that are none; the keys are listed.
    """
    model: Phi3VisionForConditionalGeneration
    try:
        check_sizes(Phi3VisionConfig.from_pretrained(name_or_path, **hub))
        model, info = Phi3VisionForConditionalGeneration.from_pretrained(
            name_or_path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **hub
        )
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"a weights file of {name_or_path!r} is damaged, perhaps a broken download: {error}. Download "
            "the checkpoint again."
        ) from error
    missing = sorted(info["missing_keys"])
    wrong = sorted(
        f"{key} is {tuple(found)}, expected {tuple(expected)}"
        for key, found, expected in info["mismatched_keys"]
    )
    if missing or wrong:
        unexpected = _listing("unexpected keys", sorted(info["unexpected_keys"]))
        raise ValueError(
            f"the weights of {name_or_path!r} do not fit Phi-3 Vision as its config.json describes it."
            f"{_listing('missing keys', missing)}{_listing('wrong shapes', wrong)}{unexpected}\n"
            "Is a part of the checkpoint missing, or is it that of another model? Download it again."
        )
    model.to(device).eval()  # type: ignore[arg-type, unused-ignore]
    if damaged := [name for name, tensor in model.named_parameters() if not _is_finite(tensor)]:
        raise ValueError(
            f"the weights of {name_or_path!r} hold numbers that are not finite in {dtype}."
            f"{_listing('keys', damaged)}\nDownload the checkpoint again; instead of float16, which ends at "
            "65,504, take bfloat16."
        )
    return model


def check_sizes(config: Phi3VisionConfig) -> None:
    """Check what a model is built from, before it is built.

    Raises:
        ValueError: a size is not a whole number above 0, or larger than that of any model there is.
    """
    tower = config.vision_config
    for where, part in (("", config), ("vision_config.", tower)):
        for name, limit in _LARGEST.items():
            size = getattr(part, name, 1)
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= limit:
                raise ValueError(
                    f"config.json has {where}{name}={size!r}; expected a whole number from 1 to {limit}."
                )


def _is_finite(tensor: torch.Tensor) -> bool:
    # Least and greatest take one pass without a copy, and are NaN if anything is.
    return not tensor.numel() or all(bound.isfinite().item() for bound in torch.aminmax(tensor.detach()))


def _listing(title: str, entries: Iterable[str]) -> str:
    lines = list(entries)
    return "".join([f"\n{title} ({len(lines)}):", *(f"\n  {line}" for line in lines)]) if lines else ""
