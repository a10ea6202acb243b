"""Configuration of MagicLens: two CLIP towers, and a small transformer that fuses their outputs.

Paper: MagicLens: Self-Supervised Image Retrieval with Open-Ended Instructions,
https://arxiv.org/abs/2403.19651
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config_values import check_values
from ..json_config import (
    build_dataclass,
    check_fields,
    check_heads,
    check_object,
    read_json_object,
    write_json_object,
)

if TYPE_CHECKING:
    from transformers import CLIPConfig

MODEL_TYPE = "magiclens"

# Of the towers, in transformers' names.
_TOWERS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """CLIP's text tower.

    Attributes:
        hidden_size: width of the tower.
        num_hidden_layers: blocks.
        num_attention_heads: attention heads of a block.
        intermediate_size: width of the feed-forward layers.
        vocab_size: rows of the token table.
        bos_token_id: id in front of a text.
        eos_token_id: id behind a text; the largest one.
        max_position_embeddings: longest text in tokens, both special ones included.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int = 49408
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    max_position_embeddings: int = 77

    def __post_init__(self) -> None:
        check_values(self, may_be_zero=("bos_token_id", "eos_token_id"))
        check_heads("text", self.hidden_size, self.num_attention_heads)
        # The text's embedding is read at the largest id, see modeling.py.
        if self.eos_token_id != self.vocab_size - 1:
            raise ValueError(
                f"eos_token_id is {self.eos_token_id}; it must be the largest id, {self.vocab_size - 1}."
            )


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """CLIP's vision tower.

    Attributes:
        hidden_size: width of the tower.
        num_hidden_layers: blocks.
        num_attention_heads: attention heads of a block.
        intermediate_size: width of the feed-forward layers.
        patch_size: side of a patch in pixels.
        image_size: side of the square input in pixels.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    patch_size: int
    image_size: int = 224

    def __post_init__(self) -> None:
        check_values(self)
        check_heads("vision", self.hidden_size, self.num_attention_heads)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}."
            )

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return int(self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """The head over the towers' two outputs: an encoder, and a pooler with one learned query.

    Attributes:
        hidden_size: width of the encoder, of the towers' outputs, and length of an embedding.
        num_hidden_layers: encoder layers.
        num_attention_heads: attention heads of a layer, and of the pooler.
        intermediate_size: width of the feed-forward layers.
        pooler_size: width of the pooler's attention.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    pooler_size: int

    def __post_init__(self) -> None:
        check_values(self)
        check_heads("fusion", self.hidden_size, self.num_attention_heads)
        check_heads("pooler", self.pooler_size, self.num_attention_heads)


@dataclass(frozen=True, kw_only=True)
class MagicLensConfig:
    """All parts of a MagicLens model.

    Attributes:
        name: name of the model; part of what tells one embedding space from another.
        text: the text tower.
        vision: the vision tower.
        fusion: the head.
    """

    name: str
    text: TextConfig
    vision: VisionConfig
    fusion: FusionConfig

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def num_layers(self) -> int:
        """Layers of all parts."""
        parts = (self.text, self.vision, self.fusion)
        return sum(part.num_hidden_layers for part in parts)

    def to_clip(self) -> CLIPConfig:
        """Return the configuration of both towers as transformers' ``CLIPModel`` takes it."""
        from transformers import CLIPConfig

        width = self.fusion.hidden_size
        return CLIPConfig(
            projection_dim=width,
            text_config={
                **dataclasses.asdict(self.text),
                **_TOWERS,
                "projection_dim": width,
                "pad_token_id": 0,
            },
            vision_config={
                **dataclasses.asdict(self.vision),
                **_TOWERS,
                "projection_dim": width,
                "num_channels": 3,
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        return {
            "model_type": MODEL_TYPE,
            "name": self.name,
            "text_config": dataclasses.asdict(self.text),
            "vision_config": dataclasses.asdict(self.vision),
            "fusion_config": dataclasses.asdict(self.fusion),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MagicLensConfig:
        """Build the configuration from the content of a ``config.json``.

        Args:
            data: what :meth:`to_dict` returns.

        Raises:
            ValueError: another model type, a missing field or an unknown one.
        """
        if data.get("model_type") != MODEL_TYPE:
            raise ValueError(
                f"config.json has model_type {data.get('model_type')!r}; expected {MODEL_TYPE!r}."
            )
        expected = {"model_type", "name", "text_config", "vision_config", "fusion_config"}
        check_fields("config.json", set(data), required=expected, known=expected)
        return cls(
            name=data["name"],
            text=build_dataclass(TextConfig, check_object("text_config", data["text_config"])),
            vision=build_dataclass(VisionConfig, check_object("vision_config", data["vision_config"])),
            fusion=build_dataclass(FusionConfig, check_object("fusion_config", data["fusion_config"])),
        )

    @classmethod
    def from_json_file(cls, path: Path) -> MagicLensConfig:
        """Read a ``config.json``; see :meth:`from_dict`.

        Raises:
            ValueError: the file is not a JSON object, or not a configuration this model understands.
        """
        try:
            return cls.from_dict(read_json_object(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_json_file(self, path: Path) -> None:
        """Write ``config.json``."""
        write_json_object(path, self.to_dict())


BASE = MagicLensConfig(
    name="magiclens-base",
    text=TextConfig(hidden_size=512, num_hidden_layers=12, num_attention_heads=8, intermediate_size=2048),
    vision=VisionConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        patch_size=16,
    ),
    fusion=FusionConfig(
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=2048,
        pooler_size=2048,
    ),
)
"""``magic_lens_clip_base.pkl``: on CLIP ViT-B/16, 512 dimensions."""

LARGE = MagicLensConfig(
    name="magiclens-large",
    text=TextConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    vision=VisionConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        patch_size=14,
    ),
    fusion=FusionConfig(
        hidden_size=768,
        num_hidden_layers=4,
        num_attention_heads=16,
        intermediate_size=3072,
        pooler_size=3072,
    ),
)
"""``magic_lens_clip_large.pkl``: on CLIP ViT-L/14, 768 dimensions."""

RELEASED = (BASE, LARGE)
