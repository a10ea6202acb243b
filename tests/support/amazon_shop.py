"""A local server with files of the format of Amazon Reviews 2023, and what goes wrong with them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Shop:
    """What is served, and what was asked for.

    Args:
        files: bytes by path; paths that are not there are answered with 404.
        seconds: time each answer takes.
    """

    def __init__(self, files: dict[str, bytes], seconds: float = 0.0) -> None:
        self.files = files
        self.seconds = seconds
        self.asked: Counter[str] = Counter()
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str) -> bytes | None:
        with self._lock:
            self.asked[path] += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.seconds)
        with self._lock:
            self._now -= 1
        return self.files.get(path)


@contextmanager
def serve(shop: Shop) -> Iterator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shop.answer(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shop.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()


def item(asin: str, /, *urls: str | None, **changes: Any) -> str:
    """A line of item metadata, as published; urls are of MAIN, PT01 …"""
    data = {
        "main_category": "Cell Phones & Accessories",
        "title": f"Product {asin}",
        "average_rating": 4.5,
        "rating_number": 120,
        "features": ["Slim", "Light"],
        "description": [],
        "price": 12.99,
        "images": [
            {"thumb": None, "large": None, "variant": f"PT{n:02}" if n else "MAIN", "hi_res": url}
            for n, url in enumerate(urls)
        ],
        "videos": [],
        "store": "Acme",
        "categories": ["Cell Phones & Accessories", "Cases"],
        "details": {"Colour": "Black"},
        "parent_asin": asin,
        "bought_together": None,
    }
    return json.dumps({**data, **changes})
