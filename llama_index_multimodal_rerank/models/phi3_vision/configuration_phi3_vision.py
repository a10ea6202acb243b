"""Configuration of Phi-3 Vision.

Source: `config.json` of `microsoft/Phi-3-vision-128k-instruct` and `microsoft/Phi-3.5-vision-instruct`, which
share one architecture. Like those files, the text model's sizes stand on the top level.
"""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, Phi3Config

EMBEDDING_LAYER: dict[str, Any] = {
    "embedding_cls": "image",
    "hd_transform_order": "sub_glb",
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "with_learnable_separator": True,
}
"""The one layout of image features that was published, in the words of the published `embd_layer` entry."""

CLIP_VIT_LARGE_336: dict[str, Any] = {
    "hidden_act": "quick_gelu",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
"""Sizes of `openai/clip-vit-large-patch14-336`, which the published files name but do not spell out."""

PUBLISHED_VOCAB_SIZE = 32064
PUBLISHED_STOP_TOKENS = [2, 32000, 32007]
"""`</s>`, `<|endoftext|>` and `<|end|>` of the published vocabulary."""


def _check_embedding_layer(embd_layer: dict[str, Any]) -> None:
    for name, supported in EMBEDDING_LAYER.items():
        value = embd_layer.get(name, supported)
        if value != supported:
            raise ValueError(f"embd_layer[{name!r}] is {value!r}; only {supported!r} is supported")


def _native_rope(rope: dict[str, Any], context: int, original_context: int) -> dict[str, Any]:
    """Return rotary settings in transformers' terms: `su` is `longrope`, the ratio of contexts its factor."""
    rope = dict(rope)
    kind = rope.pop("type", "default")
    kind = rope.get("rope_type", kind)
    rope["rope_type"] = "longrope" if kind == "su" else kind
    if rope["rope_type"] == "longrope":
        missing = [name for name in ("short_factor", "long_factor") if name not in rope]
        if missing:
            raise ValueError(f"the rotary settings of type {kind!r} lack {' and '.join(missing)}")
        rope["factor"] = context / original_context
    elif rope["rope_type"] != "default":
        raise ValueError(
            f"the rotary type is {kind!r}; Phi-3 Vision supports 'su' (or 'longrope') and 'default'"
        )
    return rope


class Phi3VisionConfig(Phi3Config):
    """Configuration of `Phi3VisionForConditionalGeneration`.

    Reads the released `config.json` (`model_type: phi3_v`) as it is. Four of its entries are put right on the
    way, since they would do harm as they stand: the rotary type `su` gets transformers' name `longrope`;
    references to remote code and the forced `flash_attention_2` are dropped; a `sliding_window` at least as
    long as the context, which restricts nothing, is dropped, so that plain causal attention and caches are
    used; and the end token `</s>`, which the model never writes, is joined by the tokens that do end its
    turns.

    Args:
        vision_config: Configuration of the vision tower; CLIP ViT-L/14 at 336 pixels by default.
        embd_layer: The released description of the image features' layout. Only the published layout is
            supported.
        img_processor: The released description of the vision tower, kept for other readers of the file.
        **kwargs: Everything of `transformers.Phi3Config`. `rope_scaling` may be in the released form.

    Raises:
        ValueError: If `embd_layer`, the vision tower or the rotary settings ask for something unsupported.
    """

    model_type = "phi3_v"
    sub_configs = {"vision_config": CLIPVisionConfig}  # noqa: RUF012 (transformers' own spelling)

    def __init__(
        self,
        vision_config: dict[str, Any] | CLIPVisionConfig | None = None,
        embd_layer: dict[str, Any] | None = None,
        img_processor: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.embd_layer = dict(EMBEDDING_LAYER if embd_layer is None else embd_layer)
        _check_embedding_layer(self.embd_layer)
        if not isinstance(vision_config, CLIPVisionConfig):
            vision_config = CLIPVisionConfig(
                **(CLIP_VIT_LARGE_336 if vision_config is None else vision_config)
            )
        if vision_config.image_size != 336 or vision_config.patch_size != 14:
            raise ValueError(
                f"the vision tower has image_size={vision_config.image_size} and patch_size="
                f"{vision_config.patch_size}; Phi-3 Vision's token layout needs 336 and 14"
            )
        self.vision_config = vision_config
        self.img_processor = (
            dict(img_processor)
            if img_processor is not None
            else {
                "image_dim_out": vision_config.hidden_size,
                "model_name": "openai/clip-vit-large-patch14-336",
                "name": "clip_vision_model",
                "num_img_tokens": 144,
            }
        )
        if self.img_processor.get("image_dim_out", vision_config.hidden_size) != vision_config.hidden_size:
            raise ValueError(
                f"img_processor['image_dim_out'] is {self.img_processor['image_dim_out']}, but the vision "
                f"tower's hidden_size is {vision_config.hidden_size}; they must be equal"
            )

        for name in ("auto_map", "_attn_implementation"):
            kwargs.pop(name, None)
        context = kwargs.setdefault("max_position_embeddings", 131072)
        original_context = kwargs.setdefault("original_max_position_embeddings", 4096)
        for name in ("rope_scaling", "rope_parameters"):
            if kwargs.get(name):
                kwargs[name] = _native_rope(kwargs[name], context, original_context)
        if (kwargs.get("sliding_window") or 0) >= context:
            kwargs["sliding_window"] = None
        published_vocabulary = kwargs.get("vocab_size", PUBLISHED_VOCAB_SIZE) == PUBLISHED_VOCAB_SIZE
        if published_vocabulary and kwargs.get("eos_token_id", 2) == 2:
            kwargs["eos_token_id"] = list(PUBLISHED_STOP_TOKENS)
        super().__init__(**kwargs)
