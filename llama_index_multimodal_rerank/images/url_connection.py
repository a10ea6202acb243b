"""An exchange over HTTP that has one deadline and one budget of bytes, with an address that was checked.

Clients limit the time of single operations. A server that sends a byte now and then keeps within
such limits forever: in the status line, in headers, before the body, in it, and after it. Here one
deadline and one budget hold for all operations together, at the one place that all bytes pass:
where ``http.client`` reads and writes. (h11, which httpx reads with, takes minutes for one header
line of 100 kB, in a regular expression that no deadline interrupts.)
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection, HTTPResponse
from io import BufferedReader, RawIOBase
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

from .errors import UrlError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

READ_BYTES = 64 * 1024


class LimitExceededError(Exception):
    """An exchange took too long or sent too much.

    No ``ValueError`` or ``OSError``: ``http.client`` takes those for faults of the answer.
    """


class Limits:
    """What an exchange may take, redirects included.

    Args:
        seconds: time for all of it.
        operation_seconds: time for each look-up, connection, handshake, and wait for bytes.
        max_received: bytes that may arrive.
    """

    def __init__(self, *, seconds: float, operation_seconds: float, max_received: int) -> None:
        self._seconds = seconds
        self._operation_seconds = operation_seconds
        self._deadline = time.monotonic() + seconds
        self._max_received = max_received
        self._received = 0

    def next_timeout(self) -> float:
        """Return the seconds that the next operation may take.

        Raises:
            LimitExceededError: there is no time left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise LimitExceededError(f"the server takes longer than {self._seconds:g} seconds")
        return min(left, self._operation_seconds)

    def timed_out(self) -> LimitExceededError:
        """Return the error for an operation that took longer than :meth:`next_timeout`."""
        try:
            self.next_timeout()
        except LimitExceededError as error:
            return error
        return LimitExceededError(f"the server was silent for {self._operation_seconds:g} seconds")

    def count(self, received: int) -> None:
        """Count bytes that arrived.

        Raises:
            LimitExceededError: there are too many.
        """
        self._received += received
        if self._received > self._max_received:
            raise LimitExceededError(
                f"the server sends more than {self._max_received} bytes in all, headers and framing included"
            )


@contextmanager
def get(
    target: str,
    *,
    host: str,
    port: int,
    tls: bool,
    headers: Mapping[str, str],
    limits: Limits,
    check: Callable[[str], None],
) -> Iterator[HTTPResponse]:
    """Send a GET request and yield the answer, whose body is not read yet.

    Args:
        target: path and query.
        host: name or address, in ASCII and without brackets.
        port: 1 to 65535.
        tls: whether the scheme is https.
        headers: all that are sent, ``Host`` among them.
        limits: shared by the exchanges of one picture.
        check: is called with each address of the host, and raises if it may not be connected to.
            The connection is made to one of these addresses.

    Raises:
        LimitExceededError: a limit is reached.
        UrlError: the host is not known, or what ``check`` raises.
        TimeoutError: an operation took too long.
        OSError: there is no connection, or no trust in it.
        http.client.HTTPException: the answer is not HTTP.
    """
    addresses = _resolve(host, port, limits)
    for address in addresses:
        check(address)
    with _connect(addresses, port, limits) as plain, _encrypted(plain, host, limits, tls) as connected:
        connection = HTTPConnection(host, port)
        connection.sock = _LimitedSocket(connected, limits)
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as response:
            yield response


def _resolve(host: str, port: int, limits: Limits) -> list[str]:
    # getaddrinfo takes no time limit; in a thread that nobody waits for, it may take its time.
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, name="resolve-host", daemon=True).start()
    try:
        found = answers.get(timeout=limits.next_timeout())
    except queue.Empty:
        raise limits.timed_out() from None
    if isinstance(found, Exception):
        raise UrlError(f"the host {host!r} is not known ({found})") from found
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _connect(addresses: list[str], port: int, limits: Limits) -> socket.socket:
    failure = OSError("the host has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), limits.next_timeout())
        except OSError as error:  # noqa: PERF203 (the next address may answer)
            failure = error
    raise failure


@contextmanager
def _encrypted(plain: socket.socket, host: str, limits: Limits, tls: bool) -> Iterator[socket.socket]:
    if not tls:
        yield plain
        return
    context = _tls_context()
    plain.settimeout(limits.next_timeout())  # of the whole handshake
    with context.wrap_socket(plain, server_hostname=host.removesuffix(".")) as encrypted:
        yield encrypted


@cache
def _tls_context() -> SSLContext:
    import httpx

    return httpx.create_ssl_context()  # reading the certificates of all authorities takes 50 ms


class _LimitedSocket:
    """What ``http.client`` uses of a socket."""

    def __init__(self, connected: socket.socket, limits: Limits) -> None:
        self._socket = connected
        self._limits = limits

    def sendall(self, data: ReadableBuffer) -> None:
        self._socket.settimeout(self._limits.next_timeout())
        self._socket.sendall(data)

    def makefile(self, mode: str) -> BufferedReader:
        return BufferedReader(_LimitedReader(self._socket, self._limits), READ_BYTES)

    def close(self) -> None:
        """Leave it open: it is closed where it was opened, after the body was read."""


class _LimitedReader(RawIOBase):
    def __init__(self, connected: socket.socket, limits: Limits) -> None:
        self._socket = connected
        self._limits = limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._socket.settimeout(self._limits.next_timeout())
        received = self._socket.recv_into(buffer)
        self._limits.count(received)
        return received
