"""The explorer of a run, served in this process on a free port of the loopback address."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def explored(folder: Path) -> Iterator[str]:
    """The address of the page, once all reports are read."""
    import uvicorn

    from corpusmill.pipeline.report.explore.app import make_app
    from corpusmill.pipeline.report.explore.explorer import Explorer
    from corpusmill.pipeline.report.explore.guard import Guard
    from corpusmill.pipeline.report.explore.server import HOST, listen

    explorer = Explorer(str(folder))
    explorer.load()
    listening = listen(0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(Guard(make_app(explorer), port), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://{HOST}:{port}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
