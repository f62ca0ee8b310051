"""A web server on the loopback interface that shows folders as sites, told by the Host header."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@contextmanager
def serve(sites: Mapping[str, Path]) -> Iterator[int]:
    """Serves each folder under its host name for the time of the block; gives the port, on 127.0.0.1 alone."""

    class Handler(SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            folder = sites.get(self.headers.get("Host", "").partition(":")[0])
            if folder is None:
                self.send_error(HTTPStatus.NOT_FOUND, "No such site")
                return None
            self.directory = str(folder)
            return super().send_head()

        def log_message(self, format: str, *args: Any) -> None:
            """A crawl's own requests are no news."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
