"""Every benchmark runs, at toy size, and its figures fit each other. How great they are is no matter here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import _common, milvus_sizes, reasons
from benchmarks._python_share import without_decoding, without_model
from benchmarks._rerank_sides import panorama
from llama_index_multimodal_rerank import ImageText, VisualizedBGEEmbedding, load_image
from llama_index_multimodal_rerank.demo.drawing.looks import Look

ROOT = Path(__file__).parent.parent
CPU = ("--device", "cpu", "--dtype", "float32")
SMALL = ("--picture-size", "64", "48")


def run(name: str, folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run a benchmark; return its JSON file and its output."""
    report = folder / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--json", str(report)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "no-models")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the folder was deleted" not in done.stderr  # a database's, while it was open
    return json.loads(report.read_text()), done.stdout


def test_embed(tmp_path: Path) -> None:
    counts = ("--items", "6", "--baseline-items", "3", "--repeats", "1")
    operations = tmp_path / "operations.md"
    report, output = run("embed", tmp_path, *CPU, *SMALL, "--tiny", *counts, "--profile", str(operations))
    assert report["full_size"] is False
    assert "NOT full size" in output
    ceiling = report["ceiling_tflops"]["float32"] * 1e12
    results = {each["kind"]: each for each in report["results"]}
    assert list(results) == ["image", "image_text", "text"]
    for each in results.values():
        rate = each["items_per_s"]
        assert (each["items"], each["baseline_items"]) == (6, 3)
        assert min(rate.values()) > 0
        assert each["speedup"] == pytest.approx(rate["ours"] / rate["baseline"])
        assert each["mfu"] == pytest.approx(each["gflop_per_item"] * 1e9 * rate["ours"] / ceiling)
        assert each["mfu_of_model"] == pytest.approx(each["mfu"] * rate["model"] / rate["ours"])
        assert each["least_cosine_to_baseline"] >= 0.999
    assert (
        results["image_text"]["gflop_per_item"]
        > results["image"]["gflop_per_item"]
        > results["text"]["gflop_per_item"]
        > 0
    )
    end_to_end = report["end_to_end"]
    assert end_to_end["items"] == 6
    assert set(end_to_end["share_of_stage"]) == {"load_nodes", "embed", "insert"}
    assert sum(end_to_end["share_of_stage"].values()) == pytest.approx(1)
    assert report["peak_rss"] > 100e6  # torch alone takes more
    decoded, rate = report["decoded_per_s"], results["image"]["items_per_s"]
    assert decoded["threads"] == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    # On a CPU a picture takes the time of decoding it and that of the model.
    assert 1 / report["bound"]["pictures_per_s"] == pytest.approx(
        1 / decoded["all_cores"] + 1 / rate["model"]
    )
    assert report["bound"]["reached"] == pytest.approx(rate["ours"] / report["bound"]["pictures_per_s"])
    assert results["image"]["launch_share"] is None  # a call returns when the work is done
    python = report["python"]
    assert list(python) == ["image", "image_text", "text", "load_nodes", "embed_nodes", "insert"]
    for each in python.values():
        assert 1e6 / each["microseconds"] == pytest.approx(each["per_s"])
        assert each["microseconds"] > 0
    assert "python outside of decoding and model" in output
    lines = operations.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "## One batch: image"
    assert len([line for line in lines if line.startswith("| `")]) == 3 * 10
    assert "| `aten::addmm` |" in "\n".join(lines)


def test_embed_magiclens(tmp_path: Path) -> None:
    arguments = ("--tiny", "--items", "6", "--baseline-items", "3", "--repeats", "1")
    report, output = run("embed", tmp_path, *CPU, *SMALL, *arguments, "--model", "magiclens-base")
    assert report["full_size"] is False
    results = {each["kind"]: each for each in report["results"]}
    assert list(results) == ["image", "image_text"]  # it embeds no text alone
    assert all(each["least_cosine_to_baseline"] >= 0.999 for each in results.values())
    assert results["image_text"]["gflop_per_item"] > results["image"]["gflop_per_item"] > 0
    assert report["end_to_end"]["items"] == 6
    assert report["model"] in output


def test_embed_flat(tmp_path: Path) -> None:
    report, output = run("embed", tmp_path, *CPU, "--tiny", "--flat", "30")
    flat = report["flat"]
    assert (flat["first_items"], flat["items"]) == (3, 30)
    assert flat["peak_rss_at_end"] >= flat["peak_rss_after_first"] > 100e6
    assert flat["growth"] == flat["peak_rss_at_end"] / flat["peak_rss_after_first"]
    assert "peak RSS" in output


def test_what_was_measured_is_kept_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {"candidates": 9}
    keep = _common.keeper(result, {"results": [result]}, tmp_path / "report.json")
    keep(first_queries_s={"listwise": [2.5, 1.5]})
    assert '{"first_queries_s": {"listwise": [2.5, 1.5]}}' in capsys.readouterr().err
    kept = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert kept == {"results": [{"candidates": 9, "first_queries_s": {"listwise": [2.5, 1.5]}}]}
    keep(modes={})
    assert "modes" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_rerank(tmp_path: Path) -> None:
    """What was done is counted, so it can be told that both sides did what they are said to do."""
    tokens = ("--caption-tokens", "3", "--reason-tokens", "4")
    crops = ("--num-crops", "1", "2")
    operations = tmp_path / "operations.md"
    more = ("--queries", "2", "--profile", str(operations))
    arguments = (*CPU, *SMALL, "--tiny", "--candidates", "3", "10", *tokens, *crops, *more)
    report, output = run("rerank", tmp_path, *arguments)
    assert report["full_size"] is False
    assert "NOT full size" in output
    three, ten = report["results"]
    assert (three["candidates"], ten["candidates"]) == (3, 10)
    for result in (three, ten):
        modes = result["modes"]
        baseline, first_token = modes["baseline"], modes["first_token"]
        for mode in modes.values():
            assert mode["speedup"] == pytest.approx(baseline["seconds_per_query"] / mode["seconds_per_query"])
        # The first token of each answer comes with the prompt; the others take a step each.
        steps = (3 - 1) + (result["list_tokens"] + 4 - 1)
        assert baseline["decoding_steps"] == steps
        # Ours takes a step for each label but the first and the last, and one more where [1 may go on as [10.
        silent = modes["listwise_no_caption"]["decoding_steps"]
        assert 0 <= silent - (result["candidates"] - 2 + 4) <= (result["candidates"] > 9)
        assert 0 <= modes["listwise"]["decoding_steps"] - (3 - 1) - (result["candidates"] - 2 + 4) <= 1
        # One tile and the whole: of the sheet twice, of query and sheet, of the sheet alone.
        assert (baseline["tiles_seen"], modes["listwise"]["tiles_seen"]) == (4, 4)
        assert first_token["tiles_seen"] == modes["listwise_no_caption"]["tiles_seen"] == 2
        # Two questions about one sheet: read once, seen once.
        reason = modes["first_token_reason"]
        assert (reason["tiles_seen"], reason["decoding_steps"] - (result["candidates"] > 9)) == (2, 4)
        assert reason["prompt_tokens"] == modes["listwise_no_caption"]["prompt_tokens"]
        # With twice the tiles the whole is still seen once; the baseline's number stays.
        assert modes["first_token_2_tiles"]["tiles_seen"] == 3
        assert result["first_token_tflop"] > 0
        assert result["first_token_mfu"] > 0
        for name, bound in result["bound"].items():
            # Another query may take a step more, where [1 may go on as [10.
            assert abs(bound["steps"] - modes[name]["decoding_steps"]) <= (result["candidates"] > 9)
            assert sum(bound["share"].values()) == pytest.approx(1)
            assert bound["by"] == max(bound["seconds"], key=bound["seconds"].__getitem__)
            assert (bound["weights_of_memory_speed"] is None) == (bound["steps"] == 0)
            assert bound["reading_mfu"] > 0
            assert f"{name}: reading " in output
        assert result["bound"]["first_token"]["reading_tflop"] == pytest.approx(
            result["first_token_tflop"], rel=0.2 if result["candidates"] > 9 else 1e-6
        )
        for each in result["together"].values():
            assert each["queries"] == 2
            assert each["gain"] == pytest.approx(each["one_by_one"] / each["at_once"])
    lines = operations.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "## One query of 3 candidates: listwise"
    assert len([line for line in lines if line.startswith("| `")]) == (5 + 6) * 10
    assert three["modes"]["first_token"]["decoding_steps"] == 0
    assert ten["modes"]["first_token"]["decoding_steps"] == 1  # [1 may go on as [10
    assert "first_token_windows_of_9" not in three["modes"]
    assert ten["modes"]["first_token_windows_of_9"]["tiles_seen"] == 4


def test_the_panorama_of_the_recipe() -> None:
    """Squares of 300 pixels: three rows of three, framed in black; the query in blue on the lower left."""
    candidates = [Image.new("RGB", (40, 30), (10 * i, 100, 0)) for i in range(9)]
    sheet = panorama(Image.new("RGB", (30, 40), "yellow"), candidates)
    assert sheet.size == (1200, 900)
    assert [sheet.getpixel((450 + 300 * (i % 3), 150 + 300 * (i // 3))) for i in range(9)] == [
        (10 * i, 100, 0) for i in range(9)
    ]
    assert [sheet.getpixel(at) for at in ((150, 750), (5, 750), (301, 1), (150, 150))] == [
        (255, 255, 0),
        (0, 0, 255),
        (0, 0, 0),
        (255, 255, 255),
    ]


def test_startup(tmp_path: Path) -> None:
    report, output = run("startup", tmp_path, *CPU, "--tiny", "--repeats", "1", "--models", "bge", "phi3")
    imports = report["imports"]
    seconds = imports["processes"]["core, then package"]["seconds"]
    assert imports["package_over_core"] == seconds["package"] / seconds["core"]
    for name in ("package_alone_over_core", "names_over_core", "milvus_over_core"):
        assert imports[name] > 0
    added = {title: each["added_rss"] for title, each in imports["processes"].items()}
    assert added["nothing"] == 0
    assert added["core, then names"] > 20e6
    assert set(report["models"]) == {"bge", "phi3"}
    for model in report["models"].values():
        peak = model["peak_rss"]
        assert peak["import"] <= peak["load"] <= peak["first"]
        assert model["checkpoint_bytes"] > 0
        parts = model["import_s"] + model["load_s"] + model["first_s"]
        assert parts <= model["start_to_first_s"]
    assert "NOT full size" in output


def test_search(tmp_path: Path) -> None:
    counts = ("--repeats", "3", "--queries", "4")
    report, output = run("search", tmp_path, "--rows", "40", "60", "--dim", "8", *counts)
    assert [(each["where"], each["rows"]) for each in report["results"]] == [("lite", 40), ("lite", 60)]
    for each in report["results"]:
        assert each["recall"] == 1.0  # all rows are compared
        assert each["p50_ms"] <= each["p99_ms"]
    assert output.count(" 1.000 ") == 2


def test_sizes_in_the_documentation_are_those_of_the_script() -> None:
    """docs/milvus_at_size.md has the table as it is printed; some of its figures by hand."""
    text = (ROOT / "docs" / "milvus_at_size.md").read_text(encoding="utf-8")
    assert "\n".join(milvus_sizes.table()) in text
    assert milvus_sizes.raw(10**6, 768) == 3_072_000_000
    # 4 x 768 of the vector, 33 numbers of 4 bytes, 8, and 17 numbers of 4 bytes for one row in 15
    assert milvus_sizes.hnsw(15, 768) == 15 * (3072 + 132 + 8) + 68
    assert milvus_sizes.ivf_sq8(10_000, 768) == 10_000 * 776 + 400 * 3072
    assert milvus_sizes.diskann_disk(10, 768) == 10 * 4096  # 3072 + 228 bytes: one row in a sector
    assert milvus_sizes.diskann_disk(10, 128) == 4096 * 2  # 512 + 228: five rows in one
    assert milvus_sizes.diskann_disk(10, 1024) == 10 * 8192  # 4096 + 228: two sectors


def test_flops_are_those_of_the_arithmetic() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert _common.flops_of(lambda: a @ b) == 2 * 3 * 5 * 7
    with torch.inference_mode():
        assert _common.flops_of(lambda: torch.nn.functional.linear(a, b.T)) == 2 * 3 * 5 * 7
    pixels, kernel = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 4, 4)
    # two pictures of 2 x 2 patches of 4 x 4 x 3 values, into 5 channels
    assert _common.flops_of(lambda: torch.conv2d(pixels, kernel, stride=4)) == 2 * (2 * 2 * 2 * 48 * 5)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kv_heads", "keys", "options"),
    [
        (4, 11, {}),
        (4, 11, {"is_causal": True}),  # counted as if nothing were masked
        (4, 17, {"attn_mask": torch.ones(11, 17, dtype=torch.bool)}),  # cached keys
        (2, 11, {"enable_gqa": True}),  # two queries' heads share a key's
    ],
)
def test_flops_of_attention(
    mode: Any, dtype: torch.dtype, kv_heads: int, keys: int, options: dict[str, Any]
) -> None:
    """Scores, and their weighted sum: each head's queries x keys x width, twice; whichever kernel runs."""
    query = torch.randn(2, 4, 11, 8, dtype=dtype, requires_grad=mode is torch.enable_grad)
    key, value = torch.randn(2, 2, kv_heads, keys, 8, dtype=dtype)
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = 2 * (2 * 2 * 4 * 11 * keys * 8)
    for backends in ([], [SDPBackend.MATH]):
        with mode(), sdpa_kernel(backends) if backends else nullcontext():
            assert _common.flops_of(lambda: attention(query, key, value, **options)) == expected


def test_without_decoding_and_model_all_else_is_done(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    with Image.open(pictures[0]) as image:
        size = image.size
    with without_decoding(), without_model(embed_model.model):
        decoded = load_image(pictures[0])
        vectors = embed_model.get_text_embedding_batch([ImageText("", pictures[0]), "a mug"])
    assert decoded.size == size
    assert not np.asarray(decoded.convert("RGB")).any()
    assert vectors == [[pytest.approx(embed_model.dim**-0.5)] * embed_model.dim] * 2
    assert np.asarray(load_image(pictures[0]).convert("RGB")).any()  # and outside as ever


def test_flops_of_a_model(embed_model: VisualizedBGEEmbedding) -> None:
    """A text through BERT: four square products a layer, two of the feed-forward network, attention."""
    bge = embed_model.model
    config = bge.model.config.text
    tokens, mask = bge.tokenizer.pad(bge.tokenizer(["a red cat"]))
    length, width = tokens.shape[1], config.hidden_size
    products = length * width * (4 * width + 2 * config.intermediate_size)
    attention = 2 * length * length * width
    # The last layer: keys and values of all tokens, everything else for the first.
    last = (
        2 * length * width * width + width * (2 * width + 2 * config.intermediate_size) + 2 * length * width
    )
    with torch.inference_mode():
        found = _common.flops_of(lambda: bge.model(tokens, mask, None))
        whole = _common.flops_of(lambda: bge.model.last_hidden_state(tokens, mask, None))
    assert found == 2 * ((config.num_hidden_layers - 1) * (products + attention) + last)
    assert whole == 2 * config.num_hidden_layers * (products + attention)


def test_the_median_call_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 0, 10, 0, 5, 0, 50, 0, 2, 0, 20])
    monkeypatch.setattr(_common.time, "perf_counter", lambda: next(clock))
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    assert _common.alternate(calls, 3, torch.device("cpu")) == {"a": 2, "b": 20}
    assert order == ["a", "b"] * 3


def test_reasons_are_held_against_what_is_shown() -> None:
    said = {
        "#1 fits best: a phone case with leopard print.": ("phone case", "leopard", None),
        "#1 fits best: an umbrella.": ("umbrella", None, None),
        "#1 fits best: a red mug with no pattern.": ("mug", "plain", "red"),
    }
    for reason, expected in said.items():
        assert tuple(reasons.read_reason(reason) or ()) == expected
    others = ("", "#2 fits best: a mug.", "#1 fits best: a mug", "#1 fits best: a mug with this.", "a mug.")
    for other in (None, *others):
        assert reasons.read_reason(other) is None
    looks = [Look("mug", "plain", "red"), Look("shoe", "dots", "red"), Look("mug", "dots", "blue")]
    counts = reasons.count([*list(said)[2:], "#1 fits best: a shoe.", "nonsense"], looks)
    assert counts == {
        "kind": {"questions": 3, "named": 3, "right": 2},
        "surface": {"questions": 3, "named": 2, "right": 1},
        "colour": {"questions": 3, "named": 2, "right": 1},
    }
