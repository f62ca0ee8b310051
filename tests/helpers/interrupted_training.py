"""Trains BPE repeatedly and interrupts each training (SIGINT) while it makes merges; prints the number of KeyboardInterrupts.

python tests/helpers/interrupted_training.py TIMES
"""

import os
import signal
import sys
import threading
import time

import numpy as np

from corpusmill.tokenize.bpe_train import train

WORDS, LENGTH = 100_000, 8


def interrupted(data: np.ndarray, delay: float) -> bool:
    """Whether training ends in KeyboardInterrupt, which is sent `delay` seconds after the first merges."""
    begun = threading.Event()

    def interrupt() -> None:
        begun.wait()
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        offsets = np.arange(0, data.size + 1, LENGTH, dtype=np.int64)
        train(data, offsets, np.ones(WORDS, np.int64), range(256), 1 << 17, 2, progress=lambda merges: begun.set())
        thread.join()
    except KeyboardInterrupt:
        thread.join()
        return True
    return False


if __name__ == "__main__":
    letters = np.random.default_rng(1).integers(97, 105, WORDS * LENGTH).astype(np.uint8)
    times = int(sys.argv[1])
    print(sum(interrupted(letters, 0.003 * number) for number in range(1, times + 1)))
