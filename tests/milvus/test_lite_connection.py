"""The connection to a Milvus Lite file, which is a server inside this process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from milvus_lite import server_manager_instance
from milvus_lite.adapter.grpc import server
from support.indexing_child import open_store
from support.killed_states import node

from llama_index_multimodal_rerank.milvus.lite_process import close_moved

NEVER = 2**31 - 1


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of all channels that are opened."""
    opened: list[dict[str, Any]] = []
    insecure_channel = grpc.insecure_channel

    def record(target: str, options: Any = None, **others: Any) -> grpc.Channel:
        opened.append(dict(options or ()))
        return insecure_channel(target, options, **others)

    monkeypatch.setattr(grpc, "insecure_channel", record)
    return opened


def skip_without_options(channels: list[dict[str, Any]]) -> None:
    if "grpc.keepalive_permit_without_calls" not in channels[0]:
        pytest.skip("this pymilvus takes no grpc_options")


def test_an_idle_connection_is_not_pinged(tmp_path: Path, channels: list[dict[str, Any]]) -> None:
    """Milvus Lite's server takes pymilvus' pings for an attack: after two minutes it printed
    "ENHANCE_YOUR_CALM … too_many_pings" to the user's screen."""
    open_store(str(tmp_path / "m.db"))
    assert channels
    for options in channels:
        pings_while_idle = options.get("grpc.keepalive_permit_without_calls", False)  # since pymilvus 2.6.8
        assert not pings_while_idle or options["grpc.keepalive_time_ms"] == NEVER


def test_grpc_options_of_the_caller_stay(tmp_path: Path, channels: list[dict[str, Any]]) -> None:
    given = {"grpc.keepalive_time_ms": 70_000, "grpc.initial_reconnect_backoff_ms": 300}
    open_store(str(tmp_path / "m.db"), grpc_options=given)
    skip_without_options(channels)
    assert all(given.items() <= options.items() for options in channels)
    assert given == {"grpc.keepalive_time_ms": 70_000, "grpc.initial_reconnect_backoff_ms": 300}


def test_a_port_that_another_database_had(
    tmp_path: Path, channels: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system gives ports again, and gRPC remembers that this one refused."""
    old = open_store(str(tmp_path / "old.db"))
    skip_without_options(channels)
    _, _, port = server_manager_instance._servers[str(tmp_path / "old.db")]
    shutil.rmtree(tmp_path / "old.db")
    close_moved()
    for _ in range(3):
        with pytest.raises(grpc.RpcError, match="Connection refused"):
            old.client._handler._channel.unary_unary("/any/Method")(b"", timeout=5)
    start = server.start_server_in_thread
    monkeypatch.setattr(
        server, "start_server_in_thread", lambda **options: start(**{**options, "port": port})
    )
    new = open_store(str(tmp_path / "new.db"))
    assert server_manager_instance._servers[str(tmp_path / "new.db")][2] == port
    new.add([node("1", 1)])
    assert [found.node_id for found in new.get_nodes(["1"])] == ["1"]
