"""A connection to a server on this machine that breaks: at a word of the server's, and when it is told to."""

import contextlib
import socket
import threading
from types import TracebackType


class Breaking:
    """Listens on `port` for the server; once that has said `word`, all connections are cut (`broken`), and none lives until `mend`."""

    def __init__(self, server: int, word: bytes):
        self.server, self.word, self.broken, self.whole = server, word, threading.Event(), True
        self.open: set[socket.socket] = set()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])

    def __enter__(self) -> "Breaking":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.cut()

    def cut(self) -> None:
        self.whole = False
        for end in list(self.open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.whole = True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = self.listening.accept()
                if not self.whole:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.server))
                self.open |= {client, server}
                threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, listens: bool) -> None:
        with contextlib.suppress(OSError):
            while said := source.recv(1 << 16):
                target.sendall(said)
                if listens and self.word in said and not self.broken.is_set():
                    self.cut()
                    self.broken.set()
            target.shutdown(socket.SHUT_WR)
