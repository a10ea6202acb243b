"""What the example scripts share: photographs, a model, and a picture of the results.

Nothing here is needed to use the package; read the scripts, they call its public names only.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from llama_index.core.schema import NodeWithScore
from PIL import Image, ImageDraw, ImageFont, ImageOps

from llama_index_multimodal_rerank import VisualizedBGEEmbedding, load_image

OUTPUT = Path("example-output")

# The photographs that scikit-image brings in its wheel.
PHOTOGRAPHS = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
]


def photographs() -> Path:
    """Return a folder with 15 real photographs, copied out of scikit-image."""
    try:
        import skimage
    except ImportError as error:
        raise SystemExit("The photographs come from scikit-image: pip install scikit-image") from error
    folder = OUTPUT / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder)
    return folder


def example_embedding(model_name: str | None = None) -> VisualizedBGEEmbedding:
    """Return the model named, or the released one, or, without a hub, a tiny untrained one."""
    embed_model = VisualizedBGEEmbedding(**({} if model_name is None else {"model_name": model_name}))
    if model_name is not None:
        return embed_model
    try:
        print(f"Loading {embed_model.model_name} …")
        print(f"Loaded: {embed_model.dim} dimensions, on {embed_model.model.device}.")
    except OSError as error:
        print(f"\n{error}\n")
        print("=" * 88)
        print("NO MODEL: going on with a TINY MODEL OF RANDOM WEIGHTS, which has learnt nothing.")
        print("It shows that everything runs, and pictures that look alike still come out near each")
        print("other; texts mean nothing to it. Pass --model (a name or a folder) for real results.")
        print("=" * 88)
        return VisualizedBGEEmbedding(model_name=str(untrained_model(OUTPUT / "untrained-model")))
    return embed_model


def untrained_model(folder: Path) -> Path:
    """Write a tiny Visualized BGE of seeded random weights, in the layout of a real checkpoint."""
    import string

    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from llama_index_multimodal_rerank.models.visualized_bge import VisualizedBGE, VisualizedBGEConfig
    from llama_index_multimodal_rerank.models.visualized_bge.modeling import VisualizedBGEModel
    from llama_index_multimodal_rerank.models.visualized_bge.processing import TextTokenizer

    characters = string.ascii_lowercase + string.digits + string.punctuation
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *characters, *(f"##{character}" for character in characters)]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
    )
    encoder = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 64, "intermediate_size": 128}
    config = VisualizedBGEConfig.from_dict(
        {
            "model_type": "visualized_bge",
            "name": "untrained",
            "text_config": {
                **encoder,
                "model_type": "bert",
                "vocab_size": len(words),
                "max_position_embeddings": 512,
                "type_vocab_size": 2,
                "layer_norm_eps": 1e-12,
                "pad_token_id": 0,
            },
            "vision_config": {**encoder, "patch_size": 16, "projection_dim": 64},
        }
    )
    torch.manual_seed(2)
    model = VisualizedBGEModel(config)
    for name, weights in model.named_parameters():
        if weights.ndim > 1:  # strong enough for single patches to matter
            fan_in = weights[0].numel()
            torch.nn.init.normal_(
                weights, std=0.1 if "embed" in name and "proj" not in name else fan_in**-0.5
            )
    torch.nn.init.zeros_(model.logit_scale)
    VisualizedBGE(model, TextTokenizer(wrapped, config), weights_sha256="untrained").save_pretrained(folder)
    return folder


def print_hits(title: str, hits: Sequence[NodeWithScore]) -> None:
    """Print a ranked list."""
    print(f"\n{title}")
    for rank, hit in enumerate(hits, start=1):
        print(f"  {rank}. {hit.score:.3f}  {hit.node.metadata['file_name']}")


def draw_hits(
    path: Path, query_image: str | Path | None, query_text: str, hits: Sequence[NodeWithScore]
) -> None:
    """Draw the query and its ranked pictures side by side into a PNG."""
    side, margin, line = 220, 16, 26
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    cells = [(query_image, f"query: {query_text}" if query_text else "query", "")]
    cells += [
        (hit.node.image_path, f"{rank}. {Path(hit.node.image_path).name}", f"{hit.score:.3f}")
        for rank, hit in enumerate(hits, start=1)
    ]
    width = margin + len(cells) * (side + margin)
    sheet = Image.new("RGB", (width, side + 2 * margin + 2 * line), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image_path, label, score) in enumerate(cells):
        left = margin + i * (side + margin)
        if image_path is not None:
            picture = load_image(image_path).convert("RGB")
            sheet.paste(ImageOps.pad(picture, (side, side), color="#f2f2f2"), (left, margin))
        if i == 0:
            box = (left - 4, margin - 4, left + side + 3, margin + side + 3)
            draw.rectangle(box, outline="#d1242f", width=4)
        while draw.textlength(label, font=font) > side and len(label) > 4:
            label = label.rstrip("…")[:-1] + "…"
        draw.text((left, margin + side + 6), label, fill="black", font=font)
        draw.text((left, margin + side + 6 + line), score, fill="#57606a", font=small)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    print(f"\nPicture of the results: {path}")
