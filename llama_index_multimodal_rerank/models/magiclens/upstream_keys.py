"""Which array of a released file becomes which tensor of our module, and in what layout.

The released files hold flax's parameter tree. Its kernels have the inputs first and keep heads apart;
PyTorch's linear layers have the outputs first and one dimension for all heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .configuration import MagicLensConfig, TextConfig, VisionConfig

Shape = tuple[int, ...]


def _same(array: torch.Tensor) -> torch.Tensor:
    return array


def _transpose(array: torch.Tensor) -> torch.Tensor:  # (in, out)
    return array.t()


def _convolution(array: torch.Tensor) -> torch.Tensor:  # (height, width, colours, out)
    return array.permute(3, 2, 0, 1)


def _heads_in(array: torch.Tensor) -> torch.Tensor:  # (in, heads, head width)
    return array.flatten(1).t()


def _heads_out(array: torch.Tensor) -> torch.Tensor:  # (heads, head width, out): CLIP's output projection
    return array.flatten(0, 1).t()


def _heads_tail(array: torch.Tensor) -> torch.Tensor:  # (out, heads, head width): the fusion head's
    return array.flatten(1)


def _flatten(array: torch.Tensor) -> torch.Tensor:  # (heads, head width)
    return array.flatten()


@dataclass(frozen=True)
class Parameter:
    """One tensor of our module, and the array it comes from.

    Attributes:
        name: key of our state dict.
        key: key in the released files.
        shape: shape in the released files.
        to_torch: turns the array into our layout; the result may be a view.
    """

    name: str
    key: str
    shape: Shape
    to_torch: Callable[[torch.Tensor], torch.Tensor] = _same

    @property
    def is_unchanged(self) -> bool:
        """Whether the array has our layout already."""
        return self.to_torch is _same


def parameters(config: MagicLensConfig) -> Iterator[Parameter]:
    """Yield every tensor of a model, once."""
    yield Parameter("clip.logit_scale", "params/clip/logit_scale", ())
    yield from _text_tower(config)
    yield from _vision_tower(config)
    yield from _fusion_encoder(config)
    yield from _pooler(config)


def _text_tower(config: MagicLensConfig) -> Iterator[Parameter]:
    ours, theirs, tower = "clip.text_model.", "params/clip/text/", config.text
    width = tower.hidden_size
    yield Parameter(
        f"{ours}embeddings.token_embedding.weight",
        f"{theirs}token_embedding/embedding",
        (tower.vocab_size, width),
    )
    yield Parameter(
        f"{ours}embeddings.position_embedding.weight",
        f"{theirs}positional_embedding",
        (tower.max_position_embeddings, width),
    )
    yield from _clip_blocks(ours, theirs, tower)
    yield from _clip_norm(f"{ours}final_layer_norm", f"{theirs}ln_final", width)
    yield Parameter(
        "clip.text_projection.weight",
        f"{theirs}text_projection/kernel",
        (width, config.fusion.hidden_size),
        _transpose,
    )


def _vision_tower(config: MagicLensConfig) -> Iterator[Parameter]:
    ours, theirs, tower = "clip.vision_model.", "params/clip/visual/", config.vision
    width, side = tower.hidden_size, tower.patch_size
    yield Parameter(f"{ours}embeddings.class_embedding", f"{theirs}class_embedding", (width,))
    yield Parameter(
        f"{ours}embeddings.patch_embedding.weight",
        f"{theirs}conv1/kernel",
        (side, side, 3, width),
        _convolution,
    )
    yield Parameter(
        f"{ours}embeddings.position_embedding.weight",
        f"{theirs}positional_embedding",
        (tower.num_patches + 1, width),
    )
    yield from _clip_norm(f"{ours}pre_layrnorm", f"{theirs}ln_pre", width)  # transformers spells it so
    yield from _clip_blocks(ours, theirs, tower)
    yield from _clip_norm(f"{ours}post_layernorm", f"{theirs}ln_post", width)
    yield Parameter(
        "clip.visual_projection.weight",
        f"{theirs}proj/kernel",
        (width, config.fusion.hidden_size),
        _transpose,
    )


def _clip_norm(ours: str, theirs: str, width: int) -> Iterator[Parameter]:
    yield Parameter(f"{ours}.weight", f"{theirs}/scale", (width,))
    yield Parameter(f"{ours}.bias", f"{theirs}/bias", (width,))


def _clip_blocks(ours: str, theirs: str, tower: TextConfig | VisionConfig) -> Iterator[Parameter]:
    width, heads, intermediate = tower.hidden_size, tower.num_attention_heads, tower.intermediate_size
    for i in range(tower.num_hidden_layers):
        block, block_theirs = f"{ours}encoder.layers.{i}", f"{theirs}transformer/resblocks_{i}"
        for number in ("1", "2"):
            yield from _clip_norm(f"{block}.layer_norm{number}", f"{block_theirs}/ln_{number}", width)
        for name in ("query", "key", "value"):
            linear, linear_theirs = f"{block}.self_attn.{name[0]}_proj", f"{block_theirs}/attn/{name}"
            by_heads = (heads, width // heads)
            yield Parameter(f"{linear}.weight", f"{linear_theirs}/kernel", (width, *by_heads), _heads_in)
            yield Parameter(f"{linear}.bias", f"{linear_theirs}/bias", by_heads, _flatten)
        out, out_theirs = f"{block}.self_attn.out_proj", f"{block_theirs}/attn/out"
        yield Parameter(f"{out}.weight", f"{out_theirs}/kernel", (heads, width // heads, width), _heads_out)
        yield Parameter(f"{out}.bias", f"{out_theirs}/bias", (width,))
        for name, name_theirs, shape in (
            ("fc1", "c_fc", (width, intermediate)),
            ("fc2", "c_proj", (intermediate, width)),
        ):
            layer, layer_theirs = f"{block}.mlp.{name}", f"{block_theirs}/mlp/{name_theirs}"
            yield Parameter(f"{layer}.weight", f"{layer_theirs}/kernel", shape, _transpose)
            yield Parameter(f"{layer}.bias", f"{layer_theirs}/bias", shape[1:])


def _fusion_encoder(config: MagicLensConfig) -> Iterator[Parameter]:
    width, inner = config.fusion.hidden_size, config.fusion.intermediate_size
    for i in range(config.fusion.num_hidden_layers):
        layer, theirs = f"fusion.layers.{i}", f"params/multimodal_encoder/x_layers_{i}"
        yield from _fusion_norm(f"{layer}.norm", f"{theirs}/layer_norm", width)
        yield from _fusion_attention(
            f"{layer}.attention", f"{theirs}/self_attention", width, width, config.fusion.num_attention_heads
        )
        ours, theirs = f"{layer}.feed_forward", f"{theirs}/ff_layer"
        yield from _fusion_norm(f"{ours}.norm", f"{theirs}/layer_norm", width)
        for number, shape in (("1", (width, inner)), ("2", (inner, width))):
            linear = f"{theirs}/ffn_layer{number}"
            yield Parameter(f"{ours}.layer{number}.weight", f"{linear}/linear/w", shape, _transpose)
            yield Parameter(f"{ours}.layer{number}.bias", f"{linear}/bias/b", shape[1:])


def _pooler(config: MagicLensConfig) -> Iterator[Parameter]:
    width, inner = config.fusion.hidden_size, config.fusion.pooler_size
    heads = config.fusion.num_attention_heads
    ours, theirs = "fusion.pooler", "params/contrastive_multimodal_pooler"
    yield Parameter(f"{ours}.learned_query", f"{theirs}/pooling_attn_query", (1, width))
    yield Parameter(
        f"{ours}.per_dim_scale", f"{theirs}/pool_attn/per_dim_scale/per_dim_scale", (inner // heads,)
    )
    yield from _fusion_attention(ours, f"{theirs}/pool_attn", width, inner, heads)
    yield from _fusion_norm(f"{ours}.norm", f"{theirs}/pool_attn_ln", width)


def _fusion_norm(ours: str, theirs: str, width: int) -> Iterator[Parameter]:
    for name in ("scale", "bias"):
        yield Parameter(f"{ours}.{name}", f"{theirs}/{name}", (width,))


def _fusion_attention(ours: str, theirs: str, width: int, inner: int, heads: int) -> Iterator[Parameter]:
    by_heads = (heads, inner // heads)
    for name in ("query", "key", "value"):
        yield Parameter(f"{ours}.{name}.weight", f"{theirs}/{name}/w", (width, *by_heads), _heads_in)
        yield Parameter(f"{ours}.{name}.bias", f"{theirs}/{name}/b", by_heads, _flatten)
    yield Parameter(f"{ours}.post.weight", f"{theirs}/post/w", (width, *by_heads), _heads_tail)
    yield Parameter(f"{ours}.post.bias", f"{theirs}/post/b", (width,))
