"""Configuration of Visualized BGE: a BGE text encoder that reads the patches of an EVA-02 CLIP tower.

Paper: VISTA: Visualized Text Embedding For Universal Multi-Modal Retrieval, https://arxiv.org/abs/2406.04292
Model card: https://huggingface.co/BAAI/bge-visualized
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
    from transformers import BertConfig, XLMRobertaConfig

MODEL_TYPE = "visualized_bge"
TEXT_MODEL_TYPES = ("bert", "xlm-roberta")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The BERT or XLM-RoBERTa encoder, in the field names of its Hugging Face configuration.

    Attributes:
        model_type: ``"bert"`` or ``"xlm-roberta"``.
        vocab_size: rows of the word embedding table.
        hidden_size: width of the encoder and length of an embedding.
        num_hidden_layers: encoder layers.
        num_attention_heads: attention heads of a layer.
        intermediate_size: width of the feed-forward layers.
        max_position_embeddings: rows of the position table.
        type_vocab_size: rows of the token type table.
        layer_norm_eps: epsilon of every LayerNorm.
        pad_token_id: id of the padding token.
        hidden_act: activation of the feed-forward layers.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    pad_token_id: int
    hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        check_values(self, may_be_zero=("pad_token_id",))
        if self.model_type not in TEXT_MODEL_TYPES:
            raise ValueError(
                f"The text model has model_type {self.model_type!r}; Visualized BGE is built on "
                f"{' or '.join(map(repr, TEXT_MODEL_TYPES))}."
            )
        check_heads("text", self.hidden_size, self.num_attention_heads)
        if self.max_tokens < 2:
            raise ValueError(
                f"{self.max_position_embeddings} text positions with padding id {self.pad_token_id} do not "
                "hold two special tokens."
            )

    @property
    def max_tokens(self) -> int:
        """Longest text in tokens, special tokens included: the positions a text alone can use."""
        if self.model_type == "xlm-roberta":  # its positions start behind the padding row
            return self.max_position_embeddings - self.pad_token_id - 1
        return self.max_position_embeddings

    def to_transformers(self) -> BertConfig | XLMRobertaConfig:
        """Return the equivalent ``BertConfig`` or ``XLMRobertaConfig``.

        Raises:
            ValueError: transformers does not know the activation.
        """
        from transformers import BertConfig, XLMRobertaConfig
        from transformers.activations import ACT2FN

        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act is {self.hidden_act!r}; transformers knows {', '.join(ACT2FN)}.")
        fields = dataclasses.asdict(self)
        config_class = BertConfig if fields.pop("model_type") == "bert" else XLMRobertaConfig
        return config_class(**fields)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The EVA-02 CLIP tower: pre-norm blocks, SwiGLU with an inner norm, axial rotary positions.

    Attributes:
        hidden_size: width of the tower.
        num_hidden_layers: blocks.
        num_attention_heads: attention heads of a block.
        intermediate_size: hidden width of the SwiGLU layers.
        patch_size: side of a patch in pixels.
        projection_dim: output width of the CLIP head; the embedder does not use the head.
        image_size: side of the square input in pixels.
        layer_norm_eps: epsilon of every LayerNorm.
        rope_theta: base of the rotary frequencies.
        rope_grid_size: side of the patch grid that the rotary positions are stretched to.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    patch_size: int
    projection_dim: int
    image_size: int = 224
    layer_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_grid_size: int = 16

    def __post_init__(self) -> None:
        check_values(self)
        check_heads("vision", self.hidden_size, self.num_attention_heads)
        if (width := self.hidden_size // self.num_attention_heads) % 4:
            raise ValueError(
                f"The vision heads are {width} wide; sines and cosines of two axes need a multiple of 4."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}."
            )

    @property
    def num_patches(self) -> int:
        """Patches of one image, and so the tokens it takes in the joint sequence."""
        return int(self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class VisualizedBGEConfig:
    """Both encoders of a Visualized BGE model.

    Attributes:
        name: name of the model; part of what tells one embedding space from another.
        text: the text encoder.
        vision: the vision tower.
    """

    name: str
    text: TextConfig
    vision: VisionConfig

    def __post_init__(self) -> None:
        check_values(self)
        if self.max_tokens_with_image < 2:
            raise ValueError(
                f"{self.text.max_position_embeddings} text positions do not hold the "
                f"{self.vision.num_patches} patches of an image and two special tokens."
            )

    @property
    def max_tokens_with_image(self) -> int:
        """Longest text in tokens behind an image, special tokens included."""
        return self.text.max_position_embeddings - self.vision.num_patches

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        return {
            "model_type": MODEL_TYPE,
            "name": self.name,
            "text_config": dataclasses.asdict(self.text),
            "vision_config": dataclasses.asdict(self.vision),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VisualizedBGEConfig:
        """Build the configuration from the content of a ``config.json``.

        Args:
            data: what :meth:`to_dict` returns; or the configuration of a BERT or XLM-RoBERTa model, as it
                lies beside the tokenizer of ``BAAI/bge-base-en-v1.5`` and ``BAAI/bge-m3``. The vision tower
                is then the one released with that kind of text model.

        Raises:
            ValueError: another model type, a missing field or an unknown one.
        """
        model_type = data.get("model_type")
        if model_type in TEXT_MODEL_TYPES:
            released = BASE_EN_V1_5 if model_type == "bert" else M3
            known = {field.name for field in dataclasses.fields(TextConfig)}
            text = build_dataclass(TextConfig, {key: value for key, value in data.items() if key in known})
            return cls(name=released.name, text=text, vision=released.vision)
        if model_type != MODEL_TYPE:
            raise ValueError(
                f"config.json has model_type {model_type!r}; expected {MODEL_TYPE!r}, or that of the text "
                f"model alone, {' or '.join(map(repr, TEXT_MODEL_TYPES))}."
            )
        expected = {"model_type", "name", "text_config", "vision_config"}
        check_fields("config.json", set(data), required=expected, known=expected)
        return cls(
            name=data["name"],
            text=build_dataclass(TextConfig, check_object("text_config", data["text_config"])),
            vision=build_dataclass(VisionConfig, check_object("vision_config", data["vision_config"])),
        )

    @classmethod
    def from_json_file(cls, path: Path) -> VisualizedBGEConfig:
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


BASE_EN_V1_5 = VisualizedBGEConfig(
    name="bge-visualized-base-en-v1.5",
    text=TextConfig(
        model_type="bert",
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=512,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        pad_token_id=0,
    ),
    vision=VisionConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=2048,
        patch_size=16,
        projection_dim=512,
    ),
)
"""``Visualized_base_en_v1.5.pth``: bge-base-en-v1.5 with EVA02-CLIP-B-16, 768 dimensions, English."""

M3 = VisualizedBGEConfig(
    name="bge-visualized-m3",
    text=TextConfig(
        model_type="xlm-roberta",
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    ),
    vision=VisionConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=2730,
        patch_size=14,
        projection_dim=768,
    ),
)
"""``Visualized_m3.pth``: bge-m3 with EVA02-CLIP-L-14, 1024 dimensions, multilingual."""

RELEASED = (BASE_EN_V1_5, M3)
