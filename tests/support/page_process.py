"""The page in a process of its own, as a person starts it, watched for whom it talks to."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support import signals

_WATCH = """
import os, sys

def note(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.bind"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    else:
        return
    host = address[0] if isinstance(address, tuple) else address
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{event} {host}\\n")

sys.addaudithook(note)
"""
"""Read by Python at its start: writes down whom the process connects to, and where it listens."""


@contextmanager
def started(place: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start ``multimodal-rerank app``; yield its address, and the process.

    At the end it is asked to end by SIGTERM. What it connects to and where it listens is written into
    ``place / "watched"``.
    """
    (place / "watch").mkdir()
    (place / "watch" / "sitecustomize.py").write_text(_WATCH)
    paths = [str(place / "watch"), *filter(None, [os.environ.get("PYTHONPATH"), str(Path.cwd())])]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "WATCHED": str(place / "watched"),
        "LLAMA_INDEX_CACHE_DIR": str(place / "cache"),
        "TMPDIR": str(place / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }
    (place / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_index_multimodal_rerank.app", "app", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        preexec_fn=signals.hear,
    )
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if address := re.search(r"http://\S+", line):
                yield address[0], process
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        process.wait(60)


def listening(process: int) -> set[tuple[str, int]]:
    """Return the addresses and ports at which a process and its children listen, read from Linux' tables."""
    inodes = set()
    for each in _family(process):
        for entry in Path(f"/proc/{each}/fd").iterdir():
            with suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                    inodes.add(found[1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                host, port = local.split(":")
                addresses.add((_host(host), int(port, 16)))
    return addresses


def _family(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(member for child in children for member in _family(int(child)))]


def _host(written: str) -> str:
    """Return an address of Linux' tables: groups of four bytes, the last byte of each first."""
    groups = [bytes.fromhex(written[at : at + 8])[::-1] for at in range(0, len(written), 8)]
    address = ipaddress.ip_address(b"".join(groups))
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_here(host: str) -> bool:
    """Tell whether a host, or the path of a local socket, is on this machine."""
    if host in ("None", "", "localhost") or host.startswith(("/", "b'")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
