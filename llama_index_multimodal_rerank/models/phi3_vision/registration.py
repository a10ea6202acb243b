"""Make transformers' Auto classes find Phi-3 Vision, with the released files as they are.

The released `preprocessor_config.json` asks for classes by the names they have in the published code, and
points to that code. If no class of such a name is known, `AutoProcessor` wants to run it. So the processors
are registered under these names as well.
"""

# transformers annotates only some of its functions.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from contextlib import suppress

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from .configuration_phi3_vision import Phi3VisionConfig
from .image_processing_phi3_vision import Phi3VisionImageProcessor
from .modeling_phi3_vision import Phi3VisionForConditionalGeneration
from .processing_phi3_vision import Phi3VisionProcessor


class Phi3VConfig(Phi3VisionConfig):
    """`Phi3VisionConfig` under its name in the published files."""


class Phi3VImageProcessor(Phi3VisionImageProcessor):
    """`Phi3VisionImageProcessor` under its name in the published files."""


class Phi3VProcessor(Phi3VisionProcessor):
    """`Phi3VisionProcessor` under its name in the published files."""


def register() -> None:
    """Register configuration, processors and model with transformers' Auto classes."""
    AutoConfig.register(Phi3VisionConfig.model_type, Phi3VisionConfig, exist_ok=True)
    for config, image_processor, processor in (
        (Phi3VisionConfig, Phi3VisionImageProcessor, Phi3VisionProcessor),
        (Phi3VConfig, Phi3VImageProcessor, Phi3VProcessor),
    ):
        # transformers 5.4 to 5.12 give no AutoImageProcessor without torchvision; our own loading needs none
        with suppress(ImportError):
            AutoImageProcessor.register(config, slow_image_processor_class=image_processor, exist_ok=True)
        AutoProcessor.register(config, processor, exist_ok=True)
    for auto_model in (AutoModelForImageTextToText, AutoModelForCausalLM):
        auto_model.register(Phi3VisionConfig, Phi3VisionForConditionalGeneration, exist_ok=True)
