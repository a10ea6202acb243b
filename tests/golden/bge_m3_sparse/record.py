"""Record FlagEmbedding's lexical weights into ``weights.json``; needs an environment where it imports.

``python tests/golden/bge_m3_sparse/record.py``, from the root of the repository.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from FlagEmbedding import BGEM3FlagModel
from support.bge_m3_golden import GOLDEN, read_json, write_checkpoint

PACKAGES = ("FlagEmbedding", "transformers", "tokenizers", "torch", "numpy")


def main() -> None:
    """Write ``weights.json`` beside ``cases.json``."""
    inputs = read_json("cases.json")
    recorded = {}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        for case in inputs["cases"]:
            model = BGEM3FlagModel(folder, use_fp16=case["use_fp16"], devices="cpu")
            output = model.encode(
                inputs["texts"],
                batch_size=case["batch_size"],
                max_length=case["max_length"],
                return_dense=False,
                return_sparse=True,
            )
            recorded[case["id"]] = [
                {token: float(weight) for token, weight in weights.items()}
                for weights in output["lexical_weights"]
            ]
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    lines = [f'{{\n"recorded_with": {json.dumps(versions)},\n"weights": {{']
    for number, (name, weights) in enumerate(recorded.items()):
        rows = ",\n".join(map(json.dumps, weights))
        lines.append(f"{',' if number else ''}{json.dumps(name)}: [\n{rows}\n]")
    lines.append("}\n}\n")
    (GOLDEN / "weights.json").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
