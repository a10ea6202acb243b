"""Train the demo's embedder, a tiny Visualized BGE, from scratch on drawings.

    python -m training.embedder --output out/embedder

Writes ``out/embedder/model`` (what ``VisualizedBGE.from_pretrained`` reads), ``report.json``, and
``training.pt``, from which an interrupted run continues when it is started again.

Method: queries and the products that answer them are pulled together by a symmetric InfoNCE loss over the
batch (https://arxiv.org/abs/1807.03748) with a learned scale as in CLIP (https://arxiv.org/abs/2103.00020).
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from llama_index_multimodal_rerank.models.hardware import resolve_device
from llama_index_multimodal_rerank.models.visualized_bge import (
    TextConfig,
    VisionConfig,
    VisualizedBGE,
    VisualizedBGEConfig,
    VisualizedBGEModel,
    map_ahead,
)
from llama_index_multimodal_rerank.models.visualized_bge.checkpoint import upstream_state_dict
from llama_index_multimodal_rerank.models.visualized_bge.processing import TextTokenizer

from .batches import BatchSampler
from .objective import MAX_SCALE, AttributeHeads, losses
from .pictures import draw_products, draw_sources
from .reports import environment, write_report
from .retrieval import evaluate
from .vocabulary import build_tokenizer

logger = logging.getLogger(__name__)

WEIGHTS_PTH = "Visualized_demo.pth"
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 100
WEIGHT_DECAY = 0.05
MAX_GRAD_NORM = 1.0
FIRST_SCALE = 15.0
_CURVES = ("contrast", "attributes", "first_places")


def demo_config(tokenizer: PreTrainedTokenizerFast) -> VisualizedBGEConfig:
    """Return the configuration of the demo's embedder: 1.3 million parameters, 128 dimensions."""
    return VisualizedBGEConfig(
        name="bge-visualized-demo",
        text=TextConfig(
            model_type="bert",
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=512,
            max_position_embeddings=128,
            type_vocab_size=2,
            layer_norm_eps=1e-12,
            pad_token_id=0,
        ),
        vision=VisionConfig(
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=304,
            patch_size=16,
            projection_dim=1,  # the CLIP head is part of the file format, but nothing reads it
            image_size=112,
        ),
    )


def build_model(config: VisualizedBGEConfig, seed: int) -> VisualizedBGEModel:
    """Return the model with random weights, ready to be trained.

    It stays in evaluation mode: a model this small is not hurt by overfitting that dropout would prevent.
    """
    torch.manual_seed(seed)
    model = VisualizedBGEModel(config)
    nn.init.constant_(model.logit_scale, math.log(FIRST_SCALE))
    for name, parameter in model.named_parameters():
        unused = name.startswith(("text.pooler.", "vision.eva.norm.", "vision.eva.head."))
        parameter.requires_grad_(not unused)
    return model


class Run:
    """Model, heads, optimizer and schedule of a run, and what it has come to.

    Args:
        arguments: what determines the result: seed, steps, batch_size, products, sources.
        config: of the model.
        device: where to train.
    """

    def __init__(self, arguments: dict[str, Any], config: VisualizedBGEConfig, device: torch.device) -> None:
        self.arguments = arguments
        self.model = build_model(config, arguments["seed"]).to(device)
        dim = config.text.hidden_size
        self.heads = nn.ModuleDict({name: AttributeHeads(dim) for name in ("query", "target")}).to(device)
        self.parameters = [
            parameter
            for parameter in itertools.chain(self.model.parameters(), self.heads.parameters())
            if parameter.requires_grad
        ]
        tables = [parameter for parameter in self.parameters if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.parameters if parameter.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": tables, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
            lr=LEARNING_RATE,
        )
        steps = arguments["steps"]
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, min(WARMUP_STEPS, steps // 4), steps)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[list[float]] = []
        """Contrastive loss, attribute loss and share of first places of every step."""

    def save(self, path: Path) -> None:
        """Write all of it; the file appears under its name only when it is complete."""
        unfinished = path.with_suffix(".unfinished")
        torch.save(
            {
                "arguments": self.arguments,
                "step": self.step,
                "seconds": self.seconds,
                "curve": self.curve,
                "parts": {name: part.state_dict() for name, part in self._parts().items()},
            },
            unfinished,
        )
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a file.

        Raises:
            ValueError: it is of a run with other arguments.
        """
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["arguments"] != self.arguments:
            raise ValueError(
                f"{path} is of a run with {saved['arguments']}, not {self.arguments}. Delete it to start "
                f"anew, or name another output folder."
            )
        for name, part in self._parts().items():
            part.load_state_dict(saved["parts"][name])
        self.step, self.seconds, self.curve = saved["step"], saved["seconds"], saved["curve"]

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "heads": self.heads,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }


def train(run: Run, sampler: BatchSampler, *, path: Path, save_every: int) -> None:
    """Train to the last step, saving on the way.

    Args:
        run: where to begin, and what is changed.
        sampler: of batches.
        path: file to save to.
        save_every: steps between two savings.
    """
    device = run.model.logit_scale.device
    steps = range(run.step, run.arguments["steps"])
    batches = map_ahead(sampler.batch, steps, ahead=2, workers=1)
    started = time.perf_counter() - run.seconds
    with (
        closing(batches),
        tqdm(total=run.arguments["steps"], initial=run.step, desc="Training", unit="step") as progress,
    ):
        for batch in batches:
            loss = losses(run.model, run.heads, batch.to(device))
            run.optimizer.zero_grad()
            loss.total.backward()
            nn.utils.clip_grad_norm_(run.parameters, MAX_GRAD_NORM)
            run.optimizer.step()
            run.schedule.step()
            with torch.no_grad():
                run.model.logit_scale.clamp_(max=math.log(MAX_SCALE))
            run.step += 1
            run.seconds = time.perf_counter() - started
            figures = torch.stack([loss.contrast, loss.attributes, loss.accuracy]).tolist()
            if not math.isfinite(loss.total.item()):
                raise FloatingPointError(f"The loss of step {run.step} is not finite: {figures}.")
            run.curve.append([round(figure, 4) for figure in figures])
            progress.set_postfix(
                contrast=f"{figures[0]:.3f}", attributes=f"{figures[1]:.3f}", first=f"{figures[2]:.2f}"
            )
            progress.update()
            if run.step % save_every == 0 or run.step == run.arguments["steps"]:
                run.save(path)


def save_model(model: VisualizedBGEModel, tokenizer: TextTokenizer, folder: Path) -> None:
    """Write the model in float16, as safetensors and in the format of the released ``.pth`` files."""
    for parameter in model.parameters():  # not model.half(): the rotary tables stay in float32
        parameter.data = parameter.data.half()
    VisualizedBGE(model, tokenizer, weights_sha256="").save_pretrained(folder)
    torch.save(upstream_state_dict(model), folder / WEIGHTS_PTH)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save, evaluate and report."""
    args = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    device = resolve_device(args.device)
    fast = build_tokenizer()
    config = demo_config(fast)
    tokenizer = TextTokenizer(fast, config)
    cache = args.cache or args.output / "pictures"
    drawing: dict[str, Any] = {
        "seed": args.seed,
        "sizes": [config.vision.image_size],
        "workers": args.workers,
    }
    products = draw_products(cache, args.products, **drawing)
    sources = draw_sources(cache, args.sources, **drawing)

    arguments = {name: getattr(args, name) for name in ("steps", "batch_size", "seed", "products", "sources")}
    run = Run(arguments, config, device)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    logger.info("%d parameters, on %s", parameters, device)
    path = args.output / "training.pt"
    if path.exists():
        run.load(path)
        logger.info("Continuing behind step %d of %s", run.step, path)
    sampler = BatchSampler(
        products,
        sources,
        tokenizer,
        image_size=config.vision.image_size,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    train(run, sampler, path=path, save_every=args.save_every)

    folder = args.output / "model"
    save_model(run.model, tokenizer, folder)
    # as users load it: from the file, in the numbers that were rounded for it
    embedder = VisualizedBGE.from_pretrained(folder, device=device, dtype="float32")
    started = time.perf_counter()
    evaluation = evaluate(embedder, catalogue=args.catalogue, queries=args.queries, seed=args.seed)
    report = {
        "arguments": arguments,
        "environment": environment(str(device)),
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "fingerprint": embedder.fingerprint,
        "training_seconds": round(run.seconds, 1),
        "evaluation": evaluation,
        "evaluation_seconds": round(time.perf_counter() - started, 1),
        "curve": dict(zip(_CURVES, _columns(run.curve), strict=True)),
    }
    write_report(args.output / "report.json", report)
    logger.info("Held-out looks: %s", evaluation)


def _columns(rows: Iterable[Sequence[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the model and the report")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="torch device (default: the best there is)")
    parser.add_argument("--products", type=int, default=30_000, help="training pictures of products")
    parser.add_argument("--sources", type=int, default=4_800, help="training pictures of patterns' sources")
    parser.add_argument("--cache", type=Path, help="folder of the pictures (default: pictures, in --output)")
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per processor)")
    parser.add_argument("--save-every", type=int, default=50, help="steps between two savings")
    parser.add_argument("--catalogue", type=int, default=900, help="products to search in the evaluation")
    parser.add_argument("--queries", type=int, default=400, help="composed queries of the evaluation")
    args = parser.parse_args(argv)
    for name in ("steps", "batch_size", "products", "sources", "save_every", "catalogue", "queries"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    return args


if __name__ == "__main__":
    main()
