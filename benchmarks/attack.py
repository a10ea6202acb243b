"""Attacks on what SECURITY.md promises, counted: seconds in CI, minutes by hand.

    python -m benchmarks.attack --seconds 600
    python -m benchmarks.attack --seconds 60 --only data_root

Each attack is a function that tries until its time is over and returns how often it tried and how often it
got through; to add one, write it and name it in ``ATTACKS``. Ends with status 1 if any got through.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from llama_index_multimodal_rerank import ImageLoadError
from llama_index_multimodal_rerank.images.access import ImageAccess
from llama_index_multimodal_rerank.images.memory import MAX_DECODING_BYTES

sys.path.append(str(Path(__file__).parent.parent / "tests"))

SWAPPERS = 2
BOMB_SECONDS = 20.0
BOMB_BYTES = 8 << 20


class AttackResult(NamedTuple):
    """What an attack did: attempts made, and those that got through."""

    trials: int
    failures: int


Attack = Callable[[float], AttackResult]
"""From the time at which to stop (of ``time.monotonic``) to what was done until then."""


@contextmanager
def background(step: Callable[[random.Random], None]) -> Iterator[None]:
    """Repeat a step in threads; what another thread did in between makes it fail now and then."""
    over = threading.Event()

    def repeat(seed: int) -> None:
        rng = random.Random(seed)
        while not over.is_set():
            with suppress(OSError):
                step(rng)

    threads = [threading.Thread(target=repeat, args=(seed,), daemon=True) for seed in range(SWAPPERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def data_root(end: float) -> AttackResult:
    """Read files below a folder while threads put links, folders of links, and pipes in their places."""
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary).resolve()
        root, outside = base / "root", base / "outside"
        for folder in (root / "sub", outside):
            folder.mkdir(parents=True)
        for name in ("a.png", "b.png"):
            (outside / name).write_bytes(b"secret")
        (root / "a.png").write_bytes(b"mine")
        (root / "sub" / "b.png").write_bytes(b"mine")
        access = ImageAccess(data_root=root)
        one_at_a_time = threading.Lock()

        def swap(rng: random.Random) -> None:
            fresh = base / f"fresh-{rng.random()}"
            which = rng.randrange(5)
            if which == 0:
                fresh.symlink_to(outside / "a.png")
            elif which == 1:
                os.mkfifo(fresh)
            elif which <= 3:
                fresh.write_bytes(b"mine")
            else:  # the folder above
                with one_at_a_time:
                    (root / "sub").rename(fresh)
                    (root / "sub").symlink_to(outside, target_is_directory=True)
                    (root / "sub").unlink()
                    fresh.rename(root / "sub")
                return
            fresh.replace(root / "a.png")

        with background(swap):
            return _read_until(end, access, [root / "a.png", root / "sub" / "b.png"], allowed={b"mine"})


def base64_names(end: float) -> AttackResult:
    """Read base64, and names that look like it, while files of these names come and go."""
    with tempfile.TemporaryDirectory() as temporary:
        base, before = Path(temporary).resolve(), Path.cwd()
        (base / "root").mkdir()
        picture = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
        text, name = base64.b64encode(picture * 2).decode().replace("/", "+"), "A" * 80
        access = ImageAccess(data_root=base / "root")

        def come_and_go(rng: random.Random) -> None:
            path = base / rng.choice([text, name])
            path.write_bytes(b"secret")
            path.unlink()

        os.chdir(base)  # relative names lead outside of the folder
        try:
            with background(come_and_go):
                return _read_until(end, access, [text, name], allowed={base64.b64decode(text)})
        finally:
            os.chdir(before)


def _read_until(
    end: float, access: ImageAccess, sources: list[Path] | list[str], allowed: set[bytes]
) -> AttackResult:
    """Read sources in turn, in a thread that is known to hang if it does not end."""
    trials = failures = 0
    done = threading.Event()

    def read() -> None:
        nonlocal trials, failures
        while time.monotonic() < end:
            for source in sources:
                trials += 1
                with suppress(ImageLoadError):
                    failures += access.read(source) not in allowed
        done.set()

    threading.Thread(target=read, daemon=True).start()
    hung = not done.wait(max(end - time.monotonic(), 0) + 10)
    return AttackResult(trials, failures + hung)


_DECODE = """
import resource, sys, time, warnings
from PIL import Image
from llama_index_multimodal_rerank import ImageLoadError
from llama_index_multimodal_rerank.images.access import ImageAccess
warnings.simplefilter("ignore")
data = sys.stdin.buffer.read()
Image.init()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before, start = peak(), time.process_time()
try:
    ImageAccess().load(data)
except ImageLoadError:
    pass
print(peak() - before, time.process_time() - start)
"""


def picture_bombs(end: float) -> AttackResult:
    """Decode every bomb, each in a process of its own, and measure its memory and processor time."""
    from support.picture_bombs import BOMBS, huge

    trials = failures = 0
    makers = list(BOMBS.items())
    makers += [(f"{name} of 88 million pixels", lambda _, name=name: huge(name)) for name in ("JPEG", "WEBP")]
    rng = random.Random(0)
    while time.monotonic() < end:
        rng.shuffle(makers)
        for name, make in makers:
            if time.monotonic() > end:
                break
            command = [sys.executable, "-c", _DECODE]
            done = subprocess.run(command, input=make(BOMB_BYTES), capture_output=True, check=False)  # noqa: S603
            trials += 1
            memory, seconds = map(float, done.stdout.split() or (float("inf"), float("inf")))
            if memory > MAX_DECODING_BYTES or seconds > BOMB_SECONDS:
                failures += 1
                tqdm.write(f"{name}: {memory / 1e6:.0f} MB, {seconds:.1f} s {done.stderr.decode()[-300:]}")
    return AttackResult(trials, failures)


ATTACKS: dict[str, Attack] = {
    "data_root": data_root,
    "base64_names": base64_names,
    "picture_bombs": picture_bombs,
}
"""By name. One attack is one function."""


def main(arguments: list[str] | None = None) -> int:
    """Attack, report, judge.

    Returns:
        1 if an attack got through, otherwise 0.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="of all attacks together")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS), help="which to run")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    failures = 0
    bar = tqdm(options.only, unit="attack")
    for name in bar:
        bar.set_description(name)
        outcome = ATTACKS[name](time.monotonic() + options.seconds / len(options.only))
        failures += outcome.failures
        tqdm.write(f"{name}: {outcome.trials} trials, {outcome.failures} got through")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
