"""Mixed queries from many threads, each answer held against the one given in peace."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex

from llama_index_multimodal_rerank import (
    ImageText,
    ImageTextQuery,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    load_image_nodes,
    milvus_store,
)

Job = Callable[[], Any]
WORDS = ["a phone case with this", "a mug", "in blue", "make the background dark, as if at night"]


def make_jobs(
    embed_model: VisualizedBGEEmbedding, reranker: Phi3VisionRerank, pictures: Sequence[Path], uri: Path
) -> dict[str, Job]:
    """Every way of asking, each with several questions. Answers are vectors, or lists of node ids."""
    store = milvus_store(uri, embed_model)
    store.add(list(embed_model(load_image_nodes(pictures))))
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=embed_model).as_retriever(
        similarity_top_k=len(pictures)
    )

    def rank(query: ImageTextQuery) -> list[str]:
        hits = reranker.postprocess_nodes(retriever.retrieve(query), query_bundle=query)
        return [hit.node.node_id for hit in hits]

    async def arank(query: ImageTextQuery) -> list[str]:
        hits = await reranker.apostprocess_nodes(await retriever.aretrieve(query), query_bundle=query)
        return [hit.node.node_id for hit in hits]

    jobs: dict[str, Job] = {}
    for number, (path, words) in enumerate(zip(pictures, WORDS * len(pictures), strict=False)):
        text, query = ImageText(words, path), ImageTextQuery(words, image_path=str(path))
        jobs[f"text {number}"] = lambda w=words: embed_model.get_query_embedding(w)
        jobs[f"picture {number}"] = lambda p=path: embed_model.get_image_embedding(p)
        jobs[f"composed {number}"] = lambda t=text: embed_model.get_query_embedding(t)
        jobs[f"batch {number}"] = lambda t=text, w=words: embed_model.get_text_embedding_batch([w, t, w])
        jobs[f"retrieve {number}"] = lambda q=query: [hit.node.node_id for hit in retriever.retrieve(q)]
        jobs[f"aretrieve {number}"] = lambda q=query: [
            hit.node.node_id for hit in asyncio.run(retriever.aretrieve(q))
        ]
        if number < 2:
            jobs[f"rerank {number}"] = lambda q=query: rank(q)
            jobs[f"arerank {number}"] = lambda q=query: asyncio.run(arank(q))
    return jobs


@dataclass
class Report:
    """What a run found."""

    done: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)


def same(answer: Any, expected: Any) -> bool:
    """Whether two answers agree: ids exactly, vectors to what the order of additions may change."""
    if isinstance(expected[0], str):
        return bool(answer == expected)
    return bool(np.allclose(answer, expected, rtol=0, atol=1e-5))


def run(
    jobs: dict[str, Job], *, threads: int, seconds: float, rss: Callable[[], float] | None = None
) -> Report:
    """Run jobs at random from many threads; every job once before, alone, for its expected answer."""
    expected = {name: job() for name, job in jobs.items()}
    report, lock = Report(), threading.Lock()
    end = time.monotonic() + seconds
    names = sorted(jobs)
    kinds = sorted({name.split()[0] for name in names})

    def work(seed: int) -> None:
        rng = Random(seed)
        first = kinds[seed % len(kinds)]  # every kind is done once, however slow the machine is
        some = [name for name in names if name.split()[0] == first]
        while some:
            name = rng.choice(some)
            some = names if time.monotonic() < end else []
            try:
                answer = jobs[name]()
            except Exception as error:
                with lock:
                    report.errors.append(f"{name}: {type(error).__name__}: {error}")
                continue
            with lock:
                report.done[name.split()[0]] += 1
                if not same(answer, expected[name]):
                    report.wrong.append(name)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    while rss is not None and time.monotonic() < end:
        report.rss_mib.append(rss())
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
    for worker in workers:
        worker.join()
    return report
