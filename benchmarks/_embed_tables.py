"""What ``benchmarks.embed`` prints."""

from __future__ import annotations

from typing import Any

from ._common import MIB, print_table


def print_comparison(report: dict[str, Any]) -> None:
    """Print what was measured."""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in report["ceiling_tflops"].items())
    print(f"{report['model']}{'' if report['full_size'] else ' (NOT full size)'}, {report['dtype']}")
    decoded, limit = report["decoded_per_s"], report["bound"]
    print(
        f"matrix products reach {shown} TFLOP/s; one thread decodes {decoded['one_thread']:.3g} images/s, "
        f"{decoded['threads']} threads {decoded['all_cores']:.3g}"
    )
    print(
        f"decoding and model allow {limit['pictures_per_s']:.3g} images/s, {limit['by']} is the slower; "
        f"ours reaches {limit['reached']:.0%} of it"
    )
    shares = ", ".join(
        f"{name} {each['microseconds']:.0f} us ({each['per_s']:.3g}/s)"
        for name, each in report["python"].items()
    )
    print(f"python outside of decoding and model, an item, and the rate it allows: {shares}")
    for result in report["results"]:
        if result["launch_share"] is not None:
            print(f"python launches for {result['launch_share']:.0%} of the module's time: {result['kind']}")
    print()
    print_table(
        [
            ("", "baseline/s", "ours/s", "model/s", "speedup", "MFU", "MFU of model", "cosine"),
            *(
                (
                    r["kind"],
                    r["items_per_s"]["baseline"],
                    r["items_per_s"]["ours"],
                    r["items_per_s"]["model"],
                    r["speedup"],
                    r["mfu"],
                    r["mfu_of_model"],
                    f"{r['least_cosine_to_baseline']:.5f}",
                )
                for r in report["results"]
            ),
        ]
    )
    e = report["end_to_end"]
    stages = ", ".join(f"{name} {share:.0%}" for name, share in e["share_of_stage"].items())
    print_table(
        [
            ("JPEG files to Milvus Lite", "images/s", "speedup", "x model alone", "of which"),
            ("", e["items_per_s"], e["speedup"], e["over_model_seconds"], stages),
        ]
    )


def print_flat(f: dict[str, Any]) -> None:
    """Print how memory grew."""
    print_table(
        [
            ("pictures", "peak RSS, MiB", "ratio"),
            (f["first_items"], f["peak_rss_after_first"] // MIB, 1.0),
            (f["items"], f["peak_rss_at_end"] // MIB, f["growth"]),
        ]
    )
