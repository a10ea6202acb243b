"""Long runs by hand: 32 threads of mixed queries on tiny models, memory watched, then an idle gap.

    python -m benchmarks.soak --seconds 60 --threads 32 --idle 90

Ends with status 1 if an answer was wrong, an error was raised, or memory grew. Needs the ``bench`` and
``test`` extras and the repository: the tiny models are those of the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

import psutil

from benchmarks._databases import temporary_databases
from llama_index_multimodal_rerank import Phi3VisionRerank, VisualizedBGEEmbedding
from tests.support.drawing import draw_picture
from tests.support.mixed_load import make_jobs, run, same
from tests.support.tiny_phi3_vision import write_folder as write_phi3
from tests.support.visualized_bge_golden import TINY_BERT
from tests.support.visualized_bge_golden import write_folder as write_bge

ALLOWED_GROWTH = 0.05


def main() -> None:
    """Run, report, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--idle", type=float, default=90, help="seconds without a query, then queries again")
    options = parser.parse_args()

    process = psutil.Process()
    with temporary_databases() as folder:
        pictures = [folder / f"{seed}.png" for seed in range(6)]
        for seed, path in enumerate(pictures):
            draw_picture(seed).save(path)
        embed_model = VisualizedBGEEmbedding(
            model_name=str(write_bge(folder / "bge", TINY_BERT)), device="cpu", dtype="float32"
        )
        (folder / "phi3").mkdir()
        reranker = Phi3VisionRerank(
            model=str(write_phi3(folder / "phi3")),
            device="cpu",
            dtype="float32",
            num_crops=1,
            strategy="first_token",
            caption=False,
            explain=False,
            top_n=6,
        )
        jobs = make_jobs(embed_model, reranker, pictures, folder / "m.db")
        report = run(
            jobs,
            threads=options.threads,
            seconds=options.seconds,
            rss=lambda: process.memory_info().rss / 2**20,
        )
        half = len(report.rss_mib) // 2
        # the first quarter warms caches up
        before, after = median(report.rss_mib[half // 2 : half]), median(report.rss_mib[-(half // 2) :])
        print(
            f"{options.threads} threads, {options.seconds:.0f} s: {report.done.total()} answers {report.done}"
        )
        print(f"errors: {len(report.errors)} {report.errors[:3]}; wrong answers: {len(report.wrong)}")
        print(f"RSS: {before:.0f} MiB, then {after:.0f} MiB at the end ({after / before - 1:+.1%})")

        failed = 0
        if options.idle:
            names = [name for name in jobs if name.endswith(" 0")]
            expected = {name: jobs[name]() for name in names}
            time.sleep(options.idle)
            failed = sum(not same(jobs[name](), expected[name]) for name in names)
            print(
                f"after {options.idle:.0f} s without a query: {len(names)} questions, {failed} wrong answers"
            )
        if report.errors or report.wrong or failed or after / before - 1 > ALLOWED_GROWTH:
            sys.exit(1)


if __name__ == "__main__":
    main()
