"""A hub that is not there is noticed by one connection; its client is not left to try again and again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from llama_index_multimodal_rerank import BGEM3SparseEmbedding, MagicLensEmbedding, VisualizedBGEEmbedding
from llama_index_multimodal_rerank.models import hub_reach
from llama_index_multimodal_rerank.models.hub_reach import why_unreachable
from llama_index_multimodal_rerank.vlm.phi3_vision import LocalPhi3Vision

MODELS: dict[str, Callable[[Path], object]] = {
    "Visualized BGE": lambda cache: VisualizedBGEEmbedding(cache_folder=str(cache)).dim,
    "MagicLens": lambda cache: MagicLensEmbedding(model_name="some/magiclens", cache_folder=str(cache)).dim,
    "Phi-3 Vision": lambda cache: LocalPhi3Vision("some/phi-3-vision", cache_folder=str(cache)).load(),
    "BGE-M3": lambda cache: BGEM3SparseEmbedding(cache_folder=str(cache)).encode_documents(["words"]),
}


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_reach, "getproxies", dict)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, no_proxy: None) -> Iterator[str]:
    """The address of a hub whose port is refused."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield address


@pytest.mark.parametrize("model", MODELS)
def test_no_hub_is_an_error_without_waiting(
    model: str, no_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(OSError, match=r"could not be downloaded") as caught:
        MODELS[model](tmp_path)
    assert f"(ConnectionError: {no_hub} cannot be reached: [Errno 111]" in str(caught.value)
    assert "hf download" in str(caught.value)
    assert waited == []


def test_a_hub_that_answers_is_left_to_its_client(monkeypatch: pytest.MonkeyPatch, no_proxy: None) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        accepted = threading.Thread(target=lambda: server.accept()[0].close())
        accepted.start()
        assert why_unreachable() is None
        accepted.join()


def test_an_unknown_name_is_said(monkeypatch: pytest.MonkeyPatch, no_proxy: None) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    assert str(why_unreachable()).startswith("https://hub.invalid cannot be reached: ")


def test_nothing_is_tried_offline(no_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert why_unreachable() is None


@pytest.mark.parametrize("scheme", ["http", "all"])
def test_nothing_is_tried_past_a_proxy(scheme: str, no_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_reach, "getproxies", lambda: {scheme: "http://proxy.invalid:3128"})
    monkeypatch.setattr(hub_reach, "proxy_bypass", lambda host: False)
    assert why_unreachable() is None
    monkeypatch.setattr(hub_reach, "proxy_bypass", lambda host: True)
    assert why_unreachable() is not None
