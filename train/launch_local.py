"""The processes of a group on this machine: fresh Pythons that meet at a store of this process's, and end with it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.restart import TERMINAL, Killed, RankError

if TYPE_CHECKING:
    from corpusmill.train.rank import GroupJob

#: Seconds between two looks at the processes, and those that the others have to end by themselves when one has failed.
LOOK, GRACE = 0.05, 2.0


class LocalGroup:
    """`parallel.world` processes on this machine.

    torch's own launchers (torchrun's agent, `torch.multiprocessing`) restart whatever failed, wrong input too, write about it on the
    terminal, and leave the others half a minute to end; hence these few lines. The meeting is theirs: torchrun's variables, a TCPStore.
    """

    def __init__(self, task: "GroupJob", folder: Path, progress: Progress | None):
        self.task, self.progress = task, progress
        self.left = Storage(str(folder))
        self.world = _world(task)

    def run(self, left: Storage) -> None:
        from torch.distributed import TCPStore

        Path(left.root).mkdir(parents=True)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # a free port that is ours
        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(self._process(rank, store.port, left)) for rank in range(self.world)]
            while (codes := [process.poll() for process in processes]) and None in codes and not any(codes):
                time.sleep(LOOK)
            if any(codes):
                raise self._failure(processes)

    @contextlib.contextmanager
    def _process(self, rank: int, port: int, left: Storage) -> Iterator[subprocess.Popen[bytes]]:
        """A process for the time of the block; it is killed at the end, and by itself where this one ends without coming to that."""
        env = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.world), "LOCAL_WORLD_SIZE": str(self.world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1",
        }  # fmt: skip
        if sys.platform == "linux":
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with open(left.path(f"rank-{rank}.log"), "wb") as log, self._terminal(env, rank) as descriptors:
            process = subprocess.Popen(
                [sys.executable, "-m", "corpusmill.train.rank"], env=env, stdin=subprocess.PIPE, stdout=log, stderr=log,
                pass_fds=descriptors, start_new_session=True,  # Ctrl-C is for this process; it ends the others
            )  # fmt: skip
        assert process.stdin
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps({"task": self.task, "left": left.root}).encode() + b"\n")
                process.stdin.flush()
            yield process
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    @contextlib.contextmanager
    def _terminal(self, env: dict[str, str], rank: int) -> Iterator[tuple[int, ...]]:
        """A descriptor on which the first process can draw its bar, where there is a terminal."""
        if rank or self.progress is None or not self.progress.enabled:
            yield ()
            return
        console = self.progress.console
        descriptor = os.dup(console.file.fileno())
        try:
            env.update({TERMINAL: str(descriptor), "COLUMNS": str(console.size.width), "LINES": str(console.size.height)})
            yield (descriptor,)
        finally:
            os.close(descriptor)

    def _failure(self, processes: list[subprocess.Popen[bytes]]) -> Exception:
        """What has happened. One process's death makes others fail, so they all have a moment to say what they know."""
        until = time.monotonic() + GRACE
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(LOOK)
        if self.progress and self.progress.enabled:
            self.progress.console.show_cursor(True)
        for number, process in enumerate(processes, 1):
            if process.returncode is not None and process.returncode < 0:
                cause = signal.Signals(-process.returncode).name
                perhaps = ", perhaps for want of memory" if cause == "SIGKILL" else ""
                return Killed(f"process {number} of {self.world} was killed ({cause}{perhaps})")
        return RankError(f"a process ended with {next(p.returncode for p in processes if p.returncode)}")


def _world(task: "GroupJob") -> int:
    from corpusmill.train.options import ParallelConfig

    return ParallelConfig.model_validate(task["parallel"]).world
