"""Train the demo's embedder, a tiny Visualized BGE, from scratch on drawings.

    python -m training.embedder --output out/embedder

Writes ``out/embedder/model`` (what ``VisualizedBGE.from_pretrained`` reads), ``report.json``, and
``embedder.pt``, from which an interrupted run continues when it is started again. How good it is,
``examples/evaluate.py --model out/embedder/model --reranker ""`` tells.

Method: queries and the products that answer them are pulled together by a symmetric InfoNCE loss over the
batch (https://arxiv.org/abs/1807.03748) with a learned scale as in CLIP (https://arxiv.org/abs/2103.00020).
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from llama_index_multimodal_rerank.models.hardware import resolve_device
from llama_index_multimodal_rerank.models.visualized_bge import (
    TextConfig,
    VisionConfig,
    VisualizedBGE,
    VisualizedBGEConfig,
    VisualizedBGEModel,
)
from llama_index_multimodal_rerank.models.visualized_bge.processing import TextTokenizer
from llama_index_multimodal_rerank.models.visualized_bge.state_dict import upstream_state_dict

from .batches import BatchSampler
from .loop import Schedule, Stage, run
from .objective import Objective
from .pictures import draw_products, draw_sources
from .reports import check_arguments, environment, write_report
from .vocabulary import build_tokenizer

logger = logging.getLogger(__name__)

WEIGHTS_PTH = "Visualized_demo.pth"
LEARNING_RATE = 1.5e-3
FIRST_SCALE = 15.0


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


def save_model(model: VisualizedBGEModel, tokenizer: TextTokenizer, folder: Path) -> None:
    """Write the model in float16, as safetensors and in the format of the released ``.pth`` files."""
    for parameter in model.parameters():  # not model.half(): the rotary tables stay in float32
        parameter.data = parameter.data.half()
    VisualizedBGE(model, tokenizer, weights_sha256="").save_pretrained(folder)
    torch.save(upstream_state_dict(model), folder / WEIGHTS_PTH)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save and report."""
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
    check_arguments(args.output / "arguments.json", arguments)
    model = build_model(config, args.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logger.info("%d parameters, on %s", parameters, device)
    sampler = BatchSampler(
        products,
        sources,
        tokenizer,
        image_size=config.vision.image_size,
        batch_size=args.batch_size,
    )
    objective = Objective(model).to(device)
    stage = run(
        Stage(
            name="embedder",
            schedule=Schedule(args.steps, LEARNING_RATE),
            trained=objective,
            make_batch=sampler.batch,
            loss=lambda batch: objective(batch.to(device)),
            seed=args.seed,
        ),
        args.output,
        save_every=args.save_every,
    )

    folder = args.output / "model"
    save_model(model, tokenizer, folder)
    embedder = VisualizedBGE.from_pretrained(folder, device=device, dtype="float32")  # as users load it
    report = {
        "arguments": arguments,
        "environment": environment(str(device)),
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "fingerprint": embedder.fingerprint,
        "training_seconds": round(stage.seconds, 1),
        "curve": stage.curve,
    }
    write_report(args.output / "report.json", report)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the model and the report")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="torch device (default: the best there is)")
    parser.add_argument("--products", type=int, default=18_000, help="training pictures of products")
    parser.add_argument("--sources", type=int, default=4_800, help="training pictures of patterns' sources")
    parser.add_argument("--cache", type=Path, help="folder of the pictures (default: pictures, in --output)")
    parser.add_argument("--workers", type=int, help="processes that draw (default: one per processor)")
    parser.add_argument("--save-every", type=int, default=20, help="steps between two savings")
    args = parser.parse_args(argv)
    for name in ("steps", "batch_size", "products", "sources", "save_every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    return args


if __name__ == "__main__":
    main()
