"""From a file to our module: every tensor is accounted for, and only few are in memory beside the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint_checks import check_dtypes, check_shapes
from ..digest import combined_digest, tensor_digest
from ..errors import CheckpointError
from ..serialization import read_weights, write_weights
from .configuration import RELEASED, MagicLensConfig
from .flax_checkpoint import FlaxCheckpoint
from .modeling import MagicLensModel
from .upstream_keys import parameters

FLAX_SUFFIX = ".pkl"
# No embedding depends on it.
_UNUSED = "clip.logit_scale"
_LEARNED_QUERY = "params/contrastive_multimodal_pooler/pooling_attn_query"
# Few, because each holds a tensor and what is needed to digest it.
_READERS = 2


@dataclass(frozen=True)
class Weights:
    """The tensors of a model in a file, complete and of the right shapes, each read when it is asked for.

    Attributes:
        config: the model.
        names: keys of our state dict.
        read: returns a tensor by its name, in our layout, contiguous, on the CPU, in the type of the file.
    """

    config: MagicLensConfig
    names: tuple[str, ...]
    read: Callable[[str], torch.Tensor]


def open_weights(path: Path, config: MagicLensConfig | None) -> Weights:
    """Open a file and check that it holds the tensors of a model: none missing, none left over.

    Args:
        path: a released file (``.pkl``), or what :meth:`MagicLens.save_pretrained` wrote.
        config: the model; None for a released file, whose sizes tell which one it is.

    Raises:
        CheckpointError: the file is damaged, is no set of weights, or does not fit the model.
        FileNotFoundError: there is no such file.
    """
    if path.suffix == FLAX_SUFFIX:
        return _open_flax(path, config)
    if config is None:
        raise CheckpointError(f"{path} has no config.json beside it; put the model's there.")
    tensors = read_weights(path)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    _check_layers(path, config, len(found))
    expected = module_shapes(config)
    _check(path, config, expected, found, {name: tensor.dtype for name, tensor in tensors.items()})
    return Weights(config, tuple(expected), lambda name: tensors[name].contiguous())


def _open_flax(path: Path, config: MagicLensConfig | None) -> Weights:
    checkpoint = FlaxCheckpoint(path)
    arrays = checkpoint.arrays
    if not any(key.startswith("params/") for key in arrays):
        tops = sorted({key.partition("/")[0] for key in arrays})
        raise CheckpointError(
            f"{path} has no 'params' at its top, where the arrays of a model are; it has "
            f"{', '.join(map(repr, tops[:8])) or 'nothing'}."
        )
    if config is None:
        config = _released(path, checkpoint)
    _check_layers(path, config, len(arrays))
    by_name = {parameter.name: parameter for parameter in parameters(config)}
    expected = {parameter.key: parameter.shape for parameter in by_name.values()}
    found = {key: entry.shape for key, entry in arrays.items()}
    _check(path, config, expected, found, {key: entry.dtype for key, entry in arrays.items()})

    # What is only read to be turned around goes through memory that stays: blocks that come and go between
    # those that remain would leave gaps, a third of the model's size.
    largest = max(arrays[each.key].nbytes for each in by_name.values() if not each.is_unchanged)
    scratch = threading.local()

    def read(name: str) -> torch.Tensor:
        parameter = by_name[name]
        if parameter.is_unchanged:
            return checkpoint.read(parameter.key)
        if not hasattr(scratch, "bytes"):
            scratch.bytes = torch.empty(largest, dtype=torch.uint8)
        return parameter.to_torch(checkpoint.read(parameter.key, scratch.bytes)).clone(
            memory_format=torch.contiguous_format
        )

    return Weights(config, tuple(by_name), read)


def _released(path: Path, checkpoint: FlaxCheckpoint) -> MagicLensConfig:
    found = checkpoint.arrays.get(_LEARNED_QUERY)
    for config in RELEASED:
        if found is not None and found.shape == (1, config.fusion.hidden_size):
            return config
    raise CheckpointError(
        f"{path} has no config.json beside it and is not one of the released models: its {_LEARNED_QUERY} is "
        f"{found.shape if found else 'missing'}, theirs are "
        f"{' and '.join(str((1, config.fusion.hidden_size)) for config in RELEASED)}."
    )


def _check_layers(path: Path, config: MagicLensConfig, tensors: int) -> None:
    # Before anything is made for each layer: a configuration may say millions.
    if config.num_layers > tensors:
        raise CheckpointError(
            f"{path}: The weights do not fit the model {config.name!r}: its configuration says "
            f"{config.num_layers} layers, and the file has {tensors} tensors."
        )


def _check(
    path: Path,
    config: MagicLensConfig,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, torch.dtype],
) -> None:
    try:
        check_shapes(config.name, expected, found)
        check_dtypes(dtypes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def fill_model(model: MagicLensModel, weights: Weights, *, device: torch.device, dtype: torch.dtype) -> str:
    """Fill a model, built on the meta device.

    One tensor after the other is read and converted and takes the place of the parameter, so memory stays
    near one copy of the model.

    Args:
        model: the model.
        weights: its tensors.
        device: where the parameters go.
        dtype: floating point type of the towers; the fusion head stays in float32.

    Returns:
        Digest of the tensors that embeddings depend on, the same whatever file, device and ``dtype``.
    """

    def load(name: str) -> tuple[torch.Tensor, tuple[tuple[int, ...], str]]:
        tensor = weights.read(name)
        digest = tuple(tensor.shape), tensor_digest(tensor)
        return tensor.to(device=device, dtype=dtype if name.startswith("clip.") else torch.float32), digest

    with ThreadPoolExecutor(_READERS) as pool:  # hashlib, torch and files let other threads run
        loaded = dict(zip(weights.names, pool.map(load, weights.names), strict=True))
    model.load_state_dict({name: tensor for name, (tensor, _) in loaded.items()}, assign=True)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return combined_digest({name: digest for name, (_, digest) in loaded.items() if name != _UNUSED})


def save_model(model: MagicLensModel, path: Path) -> None:
    """Write the weights as safetensors, under the names of our module."""
    write_weights({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, path)


def save_weights(weights: Weights, path: Path) -> None:
    """Write the tensors of another file as safetensors, in the types of that file."""
    write_weights({name: weights.read(name) for name in weights.names}, path)


def random_weights(config: MagicLensConfig, seed: int) -> Weights:
    """Return tensors of random numbers; those of equal seeds are equal."""
    shapes = module_shapes(config)
    seeds = {name: seed * len(shapes) + number for number, name in enumerate(shapes)}

    def read(name: str) -> torch.Tensor:
        noise = 0.1 * torch.randn(shapes[name], generator=torch.Generator().manual_seed(seeds[name]))
        # of vectors, "weight" is the scale of one of CLIP's norms
        return noise + 1 if len(shapes[name]) == 1 and name.endswith(".weight") else noise

    return Weights(config, tuple(shapes), read)


def module_shapes(config: MagicLensConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of our module, by name.

    Raises:
        CheckpointError: the configuration asks for a tensor that no machine can hold.
    """
    try:
        return {
            parameter.name: tuple(parameter.to_torch(torch.empty(parameter.shape, device="meta")).shape)
            for parameter in parameters(config)
        }
    except RuntimeError as error:
        raise CheckpointError(f"The configuration of {config.name!r} cannot be a model's: {error}") from error
