"""A process that is an S3 server (moto's) on loopback: `python s3_server.py PORT`. It ends when its standard input does."""

import os
import sys
import threading

from moto.server import ThreadedMotoServer


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone, however it went."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    server = ThreadedMotoServer("127.0.0.1", port=int(sys.argv[1]), verbose=False)
    server.start()
    print("ready", flush=True)
    threading.Event().wait()
