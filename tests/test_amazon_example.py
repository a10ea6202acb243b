"""examples/amazon_reviews.py from start to end, with files of the published format from a local server."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from pathlib import Path

from support.amazon_shop import Shop, item, serve
from support.machine import run_script

from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue, draw_query_picture

EXAMPLE = Path(__file__).parent.parent / "examples" / "amazon_reviews.py"
HIT = re.compile(r"^  (\d)\. (\d\.\d{3})  (B\d+) +(\S+)  (.+)$", re.MULTILINE)


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*run_script(), str(EXAMPLE), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_amazon_reviews(tmp_path: Path) -> None:
    products = draw_catalogue(tmp_path / "drawn", count=160)  # each kind with each surface once
    files = {f"/I/{product.path.name}": product.path.read_bytes() for product in products}
    files["/I/text.jpg"] = b"This is a text."
    draw_query_picture("leopard", 0).save(tmp_path / "leopard.png")
    with serve(Shop(files)) as shop:
        lines = [
            item(f"B{n:04}", shop.url(f"/I/{product.path.name}"), title=str(product.look), price=float(n))
            for n, product in enumerate(products)
        ]
        lines[3:3] = [
            item("B9001", shop.url("/I/gone.jpg")),
            item("B9002", shop.url("/I/text.jpg"), price="from 12.99"),
            item("B9003", "http://elsewhere.invalid/I/1.jpg"),
            item("B9004"),
            lines[0],
            "{ this is no JSON",
        ]
        (tmp_path / "meta.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
        arguments = ("meta.jsonl.gz", "--hosts", "127.0.0.1", "--query-image", "leopard.png", "--demo")
        output = run(tmp_path, *arguments)
        assert "Read 163 products, skipped 3 lines." in output
        assert "  line 7: the product 'B9004' has no picture\n" in output
        assert "  line 8: the product 'B0000' is in line 1 already\n" in output
        assert "  line 9: no JSON: " in output
        assert "Have 160 pictures, 160 of them fetched now, skipped 3." in output
        assert "/I/gone.jpg: the server answered 404\n" in output
        assert "/I/text.jpg: it is not a picture" in output
        assert "elsewhere.invalid/I/1.jpg: the host 'elsewhere.invalid' (port 80) is none of those" in output
        assert "Indexed 160 products." in output
        assert all(shop.asked[path] == 1 for path in files)

        retrieved, reranked = (HIT.findall(part) for part in output.split("\nreranked"))
        assert len(retrieved) == len(reranked) == 9
        assert {hit[2] for hit in retrieved} == {hit[2] for hit in reranked}
        # No phone case with leopard print was trained on.
        assert reranked[0][4].endswith("leopard phone case")

        again = run(tmp_path, *arguments, "--sample", "20")
        assert "Have 17 pictures, 0 of them fetched now, skipped 3." in again
        assert all(shop.asked[f"/I/{product.path.name}"] == 1 for product in products)
