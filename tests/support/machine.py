"""What hardware tests see, a pytest plugin: float32 on the CPU, unless a test asks for the machine's own.

What a model computes with by default follows the hardware: bfloat16 where there are units for it, CUDA where
there is a GPU. A test that compares numbers would pass on one machine and fail on the next. So for every test
the defaults are float32 and the CPU; ``@pytest.mark.hardware_defaults`` gives one what the hardware says.
Scripts that tests start in processes of their own always follow the hardware, as they do for users.

``pytest --as-if bfloat16`` (or ``float32``) lets such tests and scripts run as on a processor with (without)
units for bfloat16, whatever this one has. All that can come out differently then has the marker
``follows_hardware``: tests marked ``hardware_defaults``, and those of modules that import :func:`run_script`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llama_index_multimodal_rerank.models import hardware

from . import as_if

_pretended: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--as-if",
        choices=as_if.DTYPES,
        help="pretend a processor with (bfloat16) or without (float32) units for bfloat16, and no GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "hardware_defaults: default device and dtype are this machine's, not the CPU and float32"
    )
    config.addinivalue_line(
        "markers", "follows_hardware: with hardware_defaults, or starts scripts (set by support.machine)"
    )
    if dtype := config.getoption("as_if"):
        as_if.pretend(dtype)
        _pretended.append(dtype)


def pytest_itemcollected(item: pytest.Item) -> None:
    starts_scripts = isinstance(item, pytest.Function) and hasattr(item.module, run_script.__name__)
    if starts_scripts or item.get_closest_marker("hardware_defaults"):
        item.add_marker("follows_hardware")


def pytest_report_header(config: pytest.Config) -> str:
    device = hardware.default_device()
    found = f"{str(hardware.default_dtype(device)).removeprefix('torch.')} on {device}"
    return f"hardware defaults: {found}{' (pretended)' if _pretended else ''}; tests: float32 on cpu"


def run_script() -> list[str]:
    """Return how a command begins that runs a script; it pretends what this run pretends."""
    return [sys.executable, str(Path(as_if.__file__)), *_pretended] if _pretended else [sys.executable]


_of_the_hardware = {name: getattr(hardware, name) for name in ("default_device", "default_dtype")}


# Of the whole session, so that models which tests share are loaded under it.
@pytest.fixture(scope="session", autouse=True)
def _float32_on_the_cpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "default_device", lambda: torch.device("cpu"))
        patch.setattr(hardware, "default_dtype", lambda _device: torch.float32)
        yield


@pytest.fixture(autouse=True)
def _hardware_defaults(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("hardware_defaults"):
            for name, function in _of_the_hardware.items():
                patch.setattr(hardware, name, function)
        yield
