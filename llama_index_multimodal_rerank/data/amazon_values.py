"""Values of Amazon Reviews 2023 as filters can use them; the table is in ``read_amazon_items``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 4000
"""Characters of a joined text, far below the 65,536 bytes that Milvus keeps of a row's metadata."""

_PRICE = re.compile(r"(?:US)?\s*\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)")
_ITEM_SIZES = ("hi_res", "large", "thumb")
_REVIEW_SIZES = ("large_image_url", "medium_image_url", "small_image_url")


def item_metadata(data: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the flat metadata of a product."""
    found: dict[str, str | int | float | bool | None] = {
        "title": _text(data.get("title")),
        "main_category": _text(data.get("main_category")),
        "store": _text(data.get("store")),
        **_price(data.get("price")),
        "average_rating": _stars(data.get("average_rating")),
        "rating_number": _count(data.get("rating_number")),
        "categories": _joined(data.get("categories"), " > "),
        "features": _joined(data.get("features"), "\n"),
        "description": _joined(data.get("description"), "\n"),
    }
    return {key: value for key, value in found.items() if value is not None}


def review_metadata(data: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the flat metadata of a review."""
    found: dict[str, str | int | float | bool | None] = {
        "asin": _text(data.get("asin")),
        "rating": _stars(data.get("rating")),
        "title": _text(data.get("title")),
        "text": _text(data.get("text")),
    }
    return {key: value for key, value in found.items() if value is not None}


def item_images(value: Any) -> dict[str, str]:
    """Return ``{url: variant}`` of a product's ``images``, ``MAIN`` first."""
    found: dict[str, str] = {}
    for place, (url, each) in enumerate(_images(value, _ITEM_SIZES)):
        found.setdefault(url, _text(each.get("variant")) or f"IMAGE{place:02}")
    return dict(sorted(found.items(), key=lambda entry: entry[1] != "MAIN"))


def review_images(value: Any) -> dict[str, str]:
    """Return ``{url: "REVIEW"}`` of a review's ``images``."""
    return {url: "REVIEW" for url, _ in _images(value, _REVIEW_SIZES)}


def _images(value: Any, sizes: tuple[str, ...]) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    for each in value if isinstance(value, list) else []:
        if not isinstance(each, dict):
            continue
        url = next((url for size in sizes if (url := _url(each.get(size)))), None)
        if url is not None:
            found.append((url, each))
    return found


def _url(value: Any) -> str | None:
    text = _text(value)
    return (
        text if text and len(text) < MAX_TEXT and text.lower().startswith(("http://", "https://")) else None
    )


def _price(value: Any) -> dict[str, str | float | None]:
    number = _number(value)
    if number is not None and number >= 0:
        return {"price": number}
    text = _text(value)
    if text is None or not any(character.isalnum() for character in text):
        return {}
    match = _PRICE.fullmatch(text)
    if match and math.isfinite(price := float(match[1].replace(",", ""))):
        return {"price": price}
    return {"price_text": text}


def _stars(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else _number(value)
    except ValueError:
        return None
    return number if number is not None and 0 <= number <= 5 else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) and 0 <= number < 2**53 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    text = value.strip()[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")
    return text or None


def _joined(value: Any, separator: str) -> str | None:
    texts = [text for each in value if (text := _text(each))] if isinstance(value, list) else []
    return separator.join(texts)[:MAX_TEXT] or None
