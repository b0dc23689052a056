"""What stands between processes in a cluster: a Service that leads to some of them, a link that can be cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Forwarder:
    """Listens on a port of its own and passes connections on to the port that it is told for each."""

    def __init__(self, target: Callable[[], int | None]) -> None:
        """target: where a new connection leads; None: nowhere, it is closed."""
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = self._stopped = False
        self._thread = threading.Thread(target=self._accept, name="forwarder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(10)

    def cut(self) -> None:
        """Nothing passes any more, in either direction; new connections come to nothing."""
        with self._lock:
            self._cut = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def _accept(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            port = None if self._cut else self._target()
            if port is None:
                return
            server = socket.create_connection(("127.0.0.1", port), timeout=10)
            with self._lock:
                if self._cut:
                    return
                self._open |= {client, server}
            _join(client, server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open -= {client, server} if server else {client}
            for one in (client, server):
                if one is not None:
                    one.close()


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass on what comes until either side ends."""
    other.settimeout(None)
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in ready.select():
                source, sink = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if not data:
                    return
                sink.sendall(data)


@contextmanager
def forwarder(target: Callable[[], int | None]) -> Iterator[Forwarder]:
    """A forwarder for as long as the block lasts."""
    made = Forwarder(target)
    made.start()
    try:
        yield made
    finally:
        made.stop()
