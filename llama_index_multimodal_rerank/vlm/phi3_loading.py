"""A checkpoint of Phi-3 Vision, from its name to model and processor on a device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..demo.checkpoints import DEMO, checkpoint_folder

if TYPE_CHECKING:
    from ..models.phi3_vision import Phi3VisionForConditionalGeneration, Phi3VisionProcessor

DEFAULT_MODEL_NAME = "microsoft/Phi-3-vision-128k-instruct"


class LoadedPhi3Vision(NamedTuple):
    """The model, in evaluation mode, and its processor."""

    model: Phi3VisionForConditionalGeneration
    processor: Phi3VisionProcessor


def load_phi3_vision(
    model_name: str, *, device: str | None, dtype: str | None, hub: Mapping[str, Any]
) -> LoadedPhi3Vision:
    """Load a checkpoint.

    Args:
        model_name: name on the hub, local folder, or ``"demo"``.
        device: torch device. Default: the best one there is.
        dtype: name of a floating point type. Default: as fits the device.
        hub: ``cache_dir``, ``revision`` and, where it is set, ``local_files_only``, as the hub's functions
            take them.

    Raises:
        OSError: the checkpoint is not there and cannot be fetched.
        ValueError: the device or dtype is not usable, or the checkpoint is damaged or that of another model;
            its missing, misshapen and non-finite tensors are listed.
    """
    import torch
    from huggingface_hub.errors import HFValidationError

    from ..models.hardware import resolve_device, resolve_dtype
    from ..models.hub_reach import why_unreachable
    from ..models.not_on_hub import describe_missing_model
    from ..models.phi3_vision import Phi3VisionProcessor
    from ..models.phi3_vision.loading import load_checkpoint

    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    place = str(checkpoint_folder("reranker")) if model_name == DEMO else model_name
    unreachable = None if hub.get("local_files_only") or Path(place).exists() else why_unreachable()
    if unreachable:
        hub = {**hub, "local_files_only": True}
    try:
        processor = Phi3VisionProcessor.from_pretrained(place, **hub)
        model = load_checkpoint(place, device=torch_device, dtype=torch_dtype, **hub)
    except (OSError, HFValidationError) as error:  # the latter for a folder that does not exist
        raise OSError(
            describe_missing_model(
                repr(model_name),
                ConnectionError(unreachable) if unreachable else error,
                commands=[DEFAULT_MODEL_NAME],
                folder_holds="a checkpoint of Phi-3 Vision",
                cache_folder=hub["cache_dir"],
            )
        ) from error
    except (ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever transformers meets in damaged files: TypeError, KeyError …
        if isinstance(error, ValueError) and place in str(error):
            raise
        raise ValueError(
            f"the checkpoint {model_name!r} cannot be loaded ({type(error).__name__}: {error}). If one of "
            "its files is damaged or from another model, download it again."
        ) from error
    return LoadedPhi3Vision(model, processor)
