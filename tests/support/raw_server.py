"""A server that says what it likes: raw bytes on a socket, for what no HTTP server would send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def raw_server(answer: Callable[[bytes], Iterable[bytes]], family: int = socket.AF_INET) -> Iterator[int]:
    """Serve on the loopback address; yields the port.

    Args:
        answer: from what was received first (a request's head, as a rule) to the pieces to send. What
            it yields last is followed by the end of the connection. It may sleep in between.
        family: ``AF_INET``, or ``AF_INET6``.
    """
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listener:

        def accept() -> None:
            with suppress(OSError):  # the listener is closed: the test is over
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError):  # the client gives up
                for piece in answer(connection.recv(65536)):
                    connection.sendall(piece)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
