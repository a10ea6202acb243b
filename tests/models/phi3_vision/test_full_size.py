"""The full-size model with seeded weights, on disk and in memory.

Writes 8.3 GB of shards and loads them on the CPU: needs 9 GB of free disk and 11 GiB of free memory. Takes
three to five minutes on two cores. Run it with `pytest -m slow -o log_cli_level=info`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import phi3_vision_golden as golden

logger = logging.getLogger(__name__)
BYTES = 8293242880
SHARDS = 8
PROBES = [
    "model.embed_tokens.weight",
    "model.layers.17.self_attn.qkv_proj.weight",
    "model.layers.31.mlp.down_proj.weight",
    "model.norm.weight",
    "model.vision_embed_tokens.glb_GN",
    "model.vision_embed_tokens.img_projection.2.weight",
    "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.5.mlp.fc1.weight",
    "model.vision_embed_tokens.img_processor.vision_model.embeddings.class_embedding",
    "lm_head.weight",
]

LOAD = """
import json, sys
import torch
from llama_index_multimodal_rerank.models.phi3_vision import Phi3VisionForConditionalGeneration

def resident(field):
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1]) for line in status if line.startswith(field)) * 1024

before = resident("VmRSS:")
model, info = Phi3VisionForConditionalGeneration.from_pretrained(sys.argv[1], output_loading_info=True)
loading_peak = resident("VmHWM:")
names = dict(model.named_parameters())
# On the CPU the weights may be mapped from the file and read only when used: use them all.
for parameter in names.values():
    parameter.detach().view(torch.int16).max()
tower = "model.vision_embed_tokens.img_processor."
probes = {}
for name in json.loads(sys.argv[2]):
    own = name if name in names else name.replace(tower + "vision_model.", tower)
    probes[name] = names[own].detach().flatten()[:64].float().tolist()
with torch.no_grad():
    logits = model(torch.tensor([[1, 32010, 29871, 13, 32007]])).logits
print(json.dumps({
    "before": before, "loading_peak": loading_peak, "peak": resident("VmHWM:"), "probes": probes,
    "missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"]),
    "parameters": len(names), "dtypes": sorted({str(p.dtype) for p in model.parameters()}),
    "finite": bool(logits.isfinite().all()),
}))
"""


def seeded(name: str, shape: list[int]) -> torch.Tensor:
    """Return seeded bf16 values on the scale of each kind of tensor, drawn in float32 for speed."""
    values = golden.seeded_weights.stream(name, 38).standard_normal(tuple(shape), dtype=np.float32)
    scale, shift = golden.seeded_weights.scale_and_shift(name, shape)
    return torch.from_numpy(values).mul_(scale).add_(shift).to(torch.bfloat16)


def write_shards(folder: Path) -> dict[str, list[int]]:
    """Write the released names shard by shard, so that one shard is in memory at a time."""
    tensors = golden.read_json("manifest_128k.json")["tensors"]
    shapes = {name: entry["shape"] for name, entry in tensors.items() if entry["in_checkpoint"]}
    names = sorted(shapes)
    weight_map = {}
    per_shard = -(-len(names) // SHARDS)
    for number in range(SHARDS):
        own = names[number * per_shard : (number + 1) * per_shard]
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        save_file(
            {name: seeded(name, shapes[name]) for name in own}, folder / file, metadata={"format": "pt"}
        )
        weight_map |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": BYTES}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(golden.read_json("config_128k.json")), encoding="utf-8")
    return shapes


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
def test_loading_peaks_below_one_and_a_fifth_of_the_checkpoint(tmp_path: Path) -> None:
    shapes = write_shards(tmp_path)
    out = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), json.dumps(PROBES)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    found = json.loads(out.stdout.splitlines()[-1])
    logger.info(
        "peak %.3f x the checkpoint while loading, %.3f after use, from %d MiB before",
        found["loading_peak"] / BYTES,
        found["peak"] / BYTES,
        found["before"] // 2**20,
    )
    for name in PROBES:
        expected = seeded(name, shapes[name]).flatten()[:64].float().tolist()
        assert found["probes"][name] == expected, name
    assert (found["missing"], found["unexpected"], found["parameters"]) == ([], [], 592)
    assert found["dtypes"] == ["torch.bfloat16"]
    assert found["finite"]
    assert found["loading_peak"] <= found["peak"] <= 1.2 * BYTES
    assert found["peak"] > 0.9 * BYTES  # else the weights were not really there
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
