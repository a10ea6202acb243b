"""From the tensors of a released file to our module, and back; every key is accounted for.

The released files hold the state dict of the authors' module. Ours is built from transformers' text models
and timm's ``Eva``; one function, :func:`upstream_key`, knows how the names correspond.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoint_checks import check_dtypes, check_shapes, check_sizes
from ..errors import CheckpointError
from ..serialization import write_weights
from .configuration import VisualizedBGEConfig
from .modeling import VisualizedBGEModel

_TEXT = {
    "text.embeddings.": "bge_embeddings.",
    "text.encoder.": "bge_encoder.",
    "text.pooler.": "bge_pooler.",
}
_TOWER = "model_visual.visual."
_BLOCK = {
    "attn.q_proj.bias": "attn.q_bias",
    "attn.v_proj.bias": "attn.v_bias",
    "attn.norm.": "attn.inner_attn_ln.",
    "mlp.fc1_g.": "mlp.w1.",
    "mlp.fc1_x.": "mlp.w2.",
    "mlp.norm.": "mlp.ffn_ln.",
    "mlp.fc2.": "mlp.w3.",
}
_UNUSED = ("bge_pooler.", "model_visual.logit_scale", f"{_TOWER}norm.", f"{_TOWER}head.")
# transformers wrote this table of 0, 1, 2 ... until 4.31
_HARMLESS = ("bge_embeddings.position_ids",)


def upstream_key(name: str) -> str:
    """Return the name that the released files give to a parameter of :class:`VisualizedBGEModel`."""
    for ours, theirs in _TEXT.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    if not name.startswith("vision.eva."):
        return f"model_visual.{name}" if name == "logit_scale" else name
    name = name.removeprefix("vision.eva.")
    if name.startswith("blocks."):
        for ours, theirs in _BLOCK.items():
            name = name.replace(ours, theirs)
    return _TOWER + name


def is_used(key: str) -> bool:
    """Tell whether embeddings depend on the tensor of this upstream key."""
    return not key.startswith(_UNUSED) and key not in _HARMLESS


def rope_keys(model: VisualizedBGEModel) -> dict[str, list[str]]:
    """Return the upstream keys of the rotary tables, all copies of two: ``{"sin": [...], "cos": [...]}``."""
    places = ["", *(f"blocks.{i}.attn." for i in range(model.config.vision.num_hidden_layers))]
    return {which: [f"{_TOWER}{place}rope.freqs_{which}" for place in places] for which in ("sin", "cos")}


def check_config(config: VisualizedBGEConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Check that a file is large enough for a model, before the model is built.

    Args:
        config: the model.
        tensors: tensors by upstream key.

    Raises:
        CheckpointError: it is too small.
    """
    text, vision = config.text, config.vision
    sizes = {
        "text vocab_size": text.vocab_size,
        "text hidden_size": text.hidden_size,
        "text num_hidden_layers": text.num_hidden_layers,
        "text intermediate_size": text.intermediate_size,
        "text max_position_embeddings": text.max_position_embeddings,
        "text type_vocab_size": text.type_vocab_size,
        "vision hidden_size": vision.hidden_size,
        "vision num_hidden_layers": vision.num_hidden_layers,
        "vision intermediate_size": vision.intermediate_size,
        "vision projection_dim": vision.projection_dim,
        "vision patches": vision.num_patches,
    }
    check_sizes(config.name, sizes, tensors)


def check_keys(model: VisualizedBGEModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a file holds the tensors of a model: none missing, none left over, all of the right shape.

    The rotary tables may be absent, all of them together: they follow from the configuration.

    Args:
        model: the model to be filled; its parameters may be on the meta device.
        shapes: shape of every tensor of the file, by upstream key.

    Raises:
        CheckpointError: with every missing key, unexpected key and wrong shape.
    """
    expected = {upstream_key(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tables = [key for keys in rope_keys(model).values() for key in keys]
    if not set(tables).isdisjoint(shapes):
        rows, columns = model.vision.rope_table.shape
        expected |= dict.fromkeys(tables, (rows, columns // 2))
    found = {key: tuple(shape) for key, shape in shapes.items()}
    check_shapes(model.config.name, expected, found, ignored=_HARMLESS)


def fill_model(
    model: VisualizedBGEModel,
    tensors: Mapping[str, torch.Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Fill a model, built on the meta device, with the tensors of a released file.

    One tensor after the other is converted and takes the place of the parameter, so memory stays near one
    copy of the model. Tensors that need no conversion are used as they are, memory-mapped where the file
    is. The rotary tables are kept in float32 whatever ``dtype`` is, with the values of the file: the
    released files hold them rounded to float16, and the authors' model rotates by those.

    Args:
        model: the model.
        tensors: tensors by upstream key, as :func:`read_weights` returns them.
        device: where the parameters go.
        dtype: floating point type of the parameters.

    Raises:
        CheckpointError: keys, shapes or dtypes do not fit, or the copies of the rotary tables differ.
    """
    check_keys(model, {key: tuple(tensor.shape) for key, tensor in tensors.items()})
    check_dtypes({key: tensor.dtype for key, tensor in tensors.items()}, ignored=_HARMLESS)
    table = _rope_table(model, tensors)
    state = {name: tensors[upstream_key(name)].to(device=device, dtype=dtype) for name in model.state_dict()}
    model.load_state_dict(state, assign=True)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    if table is not None:
        model.vision.rope_table = table.to(device)


def upstream_state_dict(model: VisualizedBGEModel) -> dict[str, torch.Tensor]:
    """Return all tensors under the keys of the released files, on the CPU, none sharing memory."""
    state = {upstream_key(name): tensor.cpu() for name, tensor in model.state_dict().items()}
    sin, cos = model.vision.rope_table.cpu().chunk(2, dim=-1)
    keys = rope_keys(model)
    state |= {key: sin.clone() for key in keys["sin"]} | {key: cos.clone() for key in keys["cos"]}
    return {key: tensor.contiguous() for key, tensor in state.items()}


def save_model(model: VisualizedBGEModel, path: Path) -> None:
    """Write the weights as safetensors under the keys of the released files.

    A model may be saved over the file it is mapped from.
    """
    write_weights(upstream_state_dict(model), path)


def _rope_table(model: VisualizedBGEModel, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    halves = []
    for keys in rope_keys(model).values():
        if keys[0] not in tensors:
            return None
        for key in keys[1:]:
            if not torch.equal(tensors[key], tensors[keys[0]]):
                raise CheckpointError(f"{key} differs from {keys[0]}; expected copies of one rotary table.")
        halves.append(tensors[keys[0]].float())
    return torch.cat(halves, dim=-1)
