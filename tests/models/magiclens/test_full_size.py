"""The released sizes: both parameter trees load whole, and in little memory.

The slow tests write checkpoints of seeded weights (0.7 and 1.9 GB) and load them in processes of their own.
Run them with `pytest -m slow -o log_cli_level=info`.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.golden import read_json
from support.magiclens_golden import CASES, FULL, config, manifest, write_folder

from llama_index_multimodal_rerank.models.magiclens import BASE, LARGE
from llama_index_multimodal_rerank.models.magiclens.modeling import meta_model
from llama_index_multimodal_rerank.models.magiclens.state_dict import module_shapes
from llama_index_multimodal_rerank.models.magiclens.upstream_keys import parameters

logger = logging.getLogger(__name__)
RELEASED = {CASES["models"][name]["embedding_width"]: name for name in FULL}

LOAD = """
import json, sys
from pathlib import Path
import torch
from llama_index_multimodal_rerank.models.magiclens import MagicLens, convert_checkpoint

def resident(field):
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) for line in status if line.startswith(field)) * 1024

# once, so that what libraries take for themselves is not counted
from transformers import CLIPModel, PreTrainedTokenizerFast
from llama_index_multimodal_rerank.models.magiclens.processing import TOKENIZER_FOLDER
PreTrainedTokenizerFast.from_pretrained(TOKENIZER_FOLDER)
place, what, dtype = sys.argv[1:]
before = resident("VmRSS:")
if what == "load":
    model = MagicLens.from_pretrained(place, device="cpu", dtype=dtype)
    for tensor in model.model.state_dict().values():  # weights may be mapped from the file: use them all
        tensor.max()
    report = {"fingerprint": model.fingerprint, "tensors": len(model.model.state_dict())}
else:
    report = {"folder": str(convert_checkpoint(place))}
print(json.dumps({"peak": resident("VmHWM:") - before, **report}))
"""


def run(place: Path, what: str, dtype: str = "float32") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(place), what, dtype], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("released", [BASE, LARGE], ids=lambda released: released.name)
def test_golden_sizes_are_those_of_the_released_models(released: Any) -> None:
    name = RELEASED.get(released.fusion.hidden_size)
    if name is None:
        pytest.skip("the golden set has no model of this released size")
    found = config(name)
    assert (found.text, found.vision, found.fusion) == (released.text, released.vision, released.fusion)


@pytest.mark.parametrize("name", CASES["models"])
def test_golden_keys_nothing_missing_and_nothing_left_over(name: str) -> None:
    """Every array of the reference has its tensor, by the same name and transform as in the manifest."""
    ours = {parameter.key: parameter for parameter in parameters(config(name))}
    entries = manifest(name)["entries"]
    assert {key: parameter.shape for key, parameter in ours.items()} == {
        entry["key"]: tuple(entry["shape"]) for entry in entries
    }
    for entry in entries:
        if "transformers" in entry:
            assert ours[entry["key"]].name == f"clip.{entry['transformers']}"
    model = meta_model(config(name))
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == module_shapes(
        config(name)
    )
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == manifest(name)["parameter_count"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_loading_takes_little_memory(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", name)
    file = folder / "model.pkl"
    size = file.stat().st_size
    assert file.with_name("config.json").is_file()
    results = {dtype: run(file, "load", dtype) for dtype in ("float32", "bfloat16")}
    converted = run(file, "convert")
    place = Path(converted["folder"])
    results["converted"] = run(place, "load")
    for what, result in {**results, "convert": converted}.items():
        logger.info("%s, %s: peak %.2f of the file's %d bytes", name, what, result["peak"] / size, size)
    assert all(result["peak"] <= 1.3 * size for result in (*results.values(), converted))
    assert results["bfloat16"]["peak"] <= 0.8 * size
    assert len({json.dumps(result["fingerprint"]) for result in results.values()}) == 1
    assert {result["tensors"] for result in results.values()} == {manifest(name)["array_count"]}
    assert read_json(place / "config.json") == config(name).to_dict()
