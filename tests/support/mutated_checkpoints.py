"""Checkpoint files with something wrong: bytes changed anywhere, or a sound pickle of damaged contents."""

from __future__ import annotations

from pathlib import Path
from random import Random

from llama_index_multimodal_rerank.models.errors import CheckpointError
from llama_index_multimodal_rerank.models.magiclens.flax_checkpoint import FlaxCheckpoint
from llama_index_multimodal_rerank.models.magiclens.state_dict import open_weights

from .flax_writer import pickled_bytes
from .magiclens_golden import CHECKPOINTS, INDEX, WHOLE_MODEL, config
from .mutated_bytes import mutated

# Heads of msgpack values, opcodes of pickle, and lengths that lie.
_TOKENS = [
    *(bytes([first]) for first in range(0x80, 0x100)),
    *(bytes([opcode]) for opcode in b"\x80\x95\x8e\x94CBqrcRibo.(N"),
    b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xc6\xff\xff\xff\xff",
    b"\xd3" + b"\xff" * 8, b"\xcf" + b"\xff" * 8, b"\xcf\x7f" + b"\xff" * 7, b"\x81\xa1a" * 40, b"\x91" * 40,
    b"\xa7float32", b"\xa6object", b"\xa4void", b"\x8e" + b"\xff" * 8,
    b"\xb9__msgpack_chunked_array__\xc3", b"\xa5shape", b"\xa6chunks", b"\xa10", b"\xa11", b"\xa6params",
]  # fmt: skip


class CheckpointFuzzer:
    """Makes damaged files and reads them.

    Args:
        folder: where the file under test is written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fuzz.pkl"
        files = [(entry, (CHECKPOINTS / name).read_bytes()) for name, entry in INDEX.items()]
        self.whole = [data for entry, data in files if "model" in entry]
        self.sound = [data for entry, data in files if "arrays" in entry]
        self.damaged = [data for entry, data in files if entry["expect"] == "refuse"]
        self.config = config(WHOLE_MODEL)

    def run(self, rng: Random) -> str:
        """Read one damaged file; say how it ended.

        Raises whatever is not a :class:`CheckpointError`: a finding.
        """
        whole = rng.random() < 0.02
        small = self.sound if rng.random() < 0.8 else self.damaged
        data = self.damage(rng, self.whole if whole else small)
        self.path.write_bytes(data)
        try:
            if whole:
                weights = open_weights(self.path, self.config)
                for name in rng.sample(weights.names, 3):
                    weights.read(name)
                return "model"
            checkpoint = FlaxCheckpoint(self.path)
            elements = sum(checkpoint.read(key).numel() for key in checkpoint.arrays)
        except CheckpointError:
            return "refused"
        assert elements <= len(data)
        return "read"

    def damage(self, rng: Random, seeds: list[bytes]) -> bytes:
        """A file with bytes changed, cut, repeated or put in; half of them as a sound pickle."""
        data = rng.choice(seeds)
        rewrap = rng.random() < 0.5
        if rewrap:
            start = data.find(b"\x81\xa6params")
            data = data[start:-2] if start >= 0 else data
        # of a large file the arrays are not worth it: near its beginning the structure is
        reach = None if len(data) < 20_000 else rng.choice([400, 4000, len(data)])
        changed = mutated(rng, data, times=rng.choice([1, 1, 1, 2, 4]), reach=reach, tokens=_TOKENS)
        return pickled_bytes(changed) if rewrap else changed
