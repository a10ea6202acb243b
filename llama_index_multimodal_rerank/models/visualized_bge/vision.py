"""The EVA-02 CLIP vision tower, on timm's ``Eva``.

Paper: EVA-CLIP: Improved Training Techniques for CLIP at Scale, https://arxiv.org/abs/2303.15389
timm knows the two released towers as ``eva02_base_patch16_clip_224`` and ``eva02_large_patch14_clip_224``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .rotary import attention_of, rotary_factors

if TYPE_CHECKING:
    from .configuration import VisionConfig


class EvaTower(nn.Module):
    """Patches of a picture to tokens.

    The final norm and the CLIP head are in the released files and so in ``eva``, but Visualized BGE reads the
    residual stream before them.

    Args:
        config: shape of the tower.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        eva_class, layer_norm, rope_class = import_timm()
        self.eva = eva_class(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.hidden_size,
            depth=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            # timm takes int(width * ratio): half a unit more keeps rounding from losing one
            mlp_ratio=(config.intermediate_size + 0.5) / config.hidden_size,
            norm_layer=partial(layer_norm, eps=config.layer_norm_eps),
            num_classes=config.projection_dim,
            global_pool="token",
            qkv_fused=False,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
        )
        attention_of(
            self.eva.blocks,
            dim=config.hidden_size,
            num_heads=config.num_attention_heads,
            qkv_fused=False,
            norm_layer=partial(layer_norm, eps=config.layer_norm_eps),
        )
        self.heads = config.num_attention_heads
        # Made on the CPU even while the parameters are on the meta device: no state dict fills it.
        with torch.device("cpu"):
            self.eva.rope = rope_class(
                config.hidden_size // config.num_attention_heads,
                in_pixels=False,
                temperature=config.rope_theta,
                feat_shape=[config.image_size // config.patch_size] * 2,
                ref_feat_shape=[config.rope_grid_size] * 2,
            )

    @property
    def rope_table(self) -> torch.Tensor:
        """Sines, then cosines, of the rotary positions, (patches, 2 * head width), float32."""
        return torch.as_tensor(self.eva.rope.pos_embed)

    @rope_table.setter
    def rope_table(self, table: torch.Tensor) -> None:
        self.eva.rope.pos_embed = table

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens, row by row, without the class token.

        Args:
            pixel_values: normalised pictures, (batch, 3, side, side).

        Returns:
            Tokens before the tower's final norm, (batch, patches, width).
        """
        patches = self.eva.patch_embed(pixel_values)  # (batch, patches, width)
        tokens = torch.cat([self.eva.cls_token.expand(len(patches), -1, -1), patches], 1) + self.eva.pos_embed
        factors = rotary_factors(self.rope_table, self.heads)
        for block in self.eva.blocks:
            tokens = block(tokens, rope=factors)
        return torch.as_tensor(tokens[:, 1:])


def import_timm() -> tuple[Any, Any, Any]:
    """Return timm's ``Eva``, ``LayerNorm`` and ``RotaryEmbeddingCat``.

    Raises:
        ImportError: timm is missing, or does not work with the installed torch and torchvision.
    """
    try:
        from timm.layers import LayerNorm, RotaryEmbeddingCat
        from timm.models.eva import Eva
    except (ImportError, RuntimeError) as error:
        # timm imports torchvision, and a torchvision built for another torch fails with
        # RuntimeError("operator torchvision::nms does not exist")
        raise ImportError(
            f"Visualized BGE needs timm for its vision tower, but `import timm` failed: {error}. "
            f"Install it with `pip install -U timm`. If the message is about torchvision, the installed "
            f"torchvision does not match torch {torch.__version__}: reinstall both together with "
            f"`pip install -U torch torchvision`, from the same index."
        ) from error
    return Eva, LayerNorm, RotaryEmbeddingCat
