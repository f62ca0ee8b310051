"""Runs an S3 server (moto's) on loopback: `python s3_server.py PORT`. It ends when its standard input does."""

import os
import sys
import threading

from moto.server import ThreadedMotoServer


def end_with_parent() -> None:
    """Ends this process as soon as its parent has ended, for any reason."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def make_writes_atomic() -> None:
    """Makes conditional writes atomic, as in S3: moto checks the condition first and writes later."""
    from moto.s3.responses import S3Response

    put, mutex = S3Response.put_object, threading.Lock()

    def put_object(self: S3Response) -> object:
        _ = self.body  # the body has arrived
        with mutex:
            return put(self)

    S3Response.put_object = put_object  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    end_with_parent()
    make_writes_atomic()
    server = ThreadedMotoServer("127.0.0.1", port=int(sys.argv[1]), verbose=False)
    server.start()
    print("ready", flush=True)
    threading.Event().wait()
