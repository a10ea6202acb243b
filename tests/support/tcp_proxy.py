"""A TCP proxy that cuts connections: an idle timeout, a pulled cable, a server that went away."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class CuttingProxy:
    """Forwards TCP connections to a target until told otherwise."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        self.budget: int | None = None
        self.absent_seconds: float | None = None
        self.absences = 0
        self._accepting = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self._accepting:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=(source, sink, source is client), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        try:
            while data := source.recv(65536):
                if upwards and self.budget is not None:
                    self.budget -= len(data)
                    if self.budget < 0:
                        self.go_away()
                        return
                sink.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            sink.close()

    def cut(self) -> None:
        """Cut the connections that are open; new ones are accepted."""
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def go_away(self) -> None:
        """Cut all connections and refuse new ones until :meth:`come_back`."""
        self._accepting = False
        self.absences += 1
        if self.absent_seconds is not None:
            threading.Timer(self.absent_seconds, self.come_back).start()
        self.cut()

    def go_away_after(self, sent_bytes: int, *, absent_seconds: float | None = None) -> None:
        """Go away in the middle of a request, after the client has sent so many bytes more.

        ``absent_seconds`` later, come back; None: stay away.
        """
        self.absent_seconds = absent_seconds
        self.budget = sent_bytes

    def come_back(self) -> None:
        """Accept connections again."""
        self.budget = None
        self._accepting = True

    def close(self) -> None:
        """End the proxy."""
        self.listener.close()
        self.cut()
