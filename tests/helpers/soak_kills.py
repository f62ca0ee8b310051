"""Kills runs of all stages at random times, restarts each until it ends, and compares them with a run that was never killed.

    python tests/helpers/soak_kills.py --kills 200 --seed 1 [--store] [--only ray] [--from 7] [--folder FOLDER]

Each run gets one to four kills (SIGKILL) a stage. The program draws the stage, then the kind of process to kill, then the time, as a share
of the stage's usual seconds. A run whose driver was killed is started again. Every third run is on a Ray cluster of two raylets.
Drivers are forked from this process, which has their libraries loaded. With `--store` the runs and the crawl are in a bucket of an S3
server that fails every 25th request; the undisturbed run is local. Prints each kill and each fault found; exits with 1 if there is a fault.
"""

import argparse
import contextlib
import importlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import s3 as servers
import victims
from forked import Driver
from raylets import Raylets
from soak_places import Disk, Found, Store, look
from victims import Kill
from whole_run import STAGES, write_inputs

from corpusmill.pipeline.recipe import stage_class

#: Seconds in which a run has to end or to make progress.
PATIENCE = 300.0
#: Engines of runs, in turn.
ENGINES = ("inline", "inline", "ray")


@dataclass
class Tally:
    """Counts of kills, and faults found."""

    kills: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by engine, stage and target
    runs: int = 0
    files: int = 0
    differ: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)


def load() -> None:
    """Imports the libraries of drivers, so that forked drivers have them."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token"}  # Ray reads them once per process
    for stage in STAGES:
        stage_class(stage)
    for name in ("ray", "torch", "tokenizers", "transformers", "corpusmill.train.pretrain_job", "corpusmill.report.page.html"):
        importlib.import_module(name)


class Soak:
    """`folder` holds the inputs and the undisturbed run (`reference`); the killed run is at `place`."""

    def __init__(self, folder: Path, place: Disk | Store):
        self.began = time.monotonic()
        self.folder, self.place, self.tally = folder, place, Tally()
        self.cluster: Raylets | None = None
        self.driver: Driver | None = None  # the last driver; earlier ones have ended
        self.wanted = Found({}, set(), {}, [])
        self.usual: dict[str, dict[str, float]] = {}  # seconds of each stage, by engine

    def prepare(self) -> None:
        """Makes the inputs and the undisturbed run, unless the folder has them."""
        reference = self.folder / "reference"
        there = (reference / "report.html").exists()
        if not there:
            shutil.rmtree(reference, ignore_errors=True)
            write_inputs(self.folder)
        self.place.bring()
        if not there:
            begun = self._start(str(reference), "inline")
            assert begun.wait(PATIENCE) == 0, begun.said()
        self.wanted = look(reference)

    def one_run(self, seed: str, engine: str, most: int) -> None:
        """Kills a run up to `most` times, resumes it to its end and compares it."""
        if engine not in self.usual:
            self._measure(engine)
        self.place.clear()
        process: Driver | None = None
        for kill in victims.drawn(seed, engine)[:most]:
            if process is None or process.poll() is not None:
                self._check_end(seed, process)
                process = self._start(self.place.run, engine)
            self._one_kill(kill, process, engine, seed)
        self._end(process, engine, seed)
        self._compare(seed)
        self._say(seed, f"compared; {self.tally.kills.total()} kills so far, this was on {engine}")

    def _measure(self, engine: str) -> None:
        """Measures the seconds of stages without kills. The reference is no measure: it may have compiled kernels that later runs find."""
        self.place.clear()
        self._end(None, engine, f"undisturbed on {engine}")
        self._compare(f"undisturbed on {engine}")
        self._say(f"undisturbed on {engine}", "has come to its end")
        self.usual[engine] = victims.stage_seconds(self.place.progress())

    def _start(self, run: str, engine: str) -> Driver:
        environment = {}
        if engine == "ray":
            if self.cluster is None:
                self.cluster = Raylets()
            environment = self.cluster.environment
        command = ["run", str(self.folder / "whole.yaml"), self.place.crawl, "--output", run, "--engine", engine]
        self.driver = Driver(command, self.folder / "output.txt", environment)
        return self.driver

    def _stage(self, process: Driver) -> str | None:
        return victims.stage_of(self.place.progress(), process.pid)

    def _one_kill(self, kill: Kill, process: Driver, engine: str, seed: str) -> None:
        """Waits until the run is in the stage, then for the drawn share of its usual time, and kills."""
        until = time.monotonic() + PATIENCE
        while (stage := self._stage(process)) is None or STAGES.index(stage) < STAGES.index(kill.stage):
            if process.poll() is not None:
                return
            if time.monotonic() > until:
                process.kill()
                self._fault(seed, f"it does not get on to {kill.stage}")
                return
            time.sleep(self.place.pause)
        until = time.monotonic() + kill.share * self.usual[engine][kill.stage]
        while time.monotonic() < until and self._stage(process) == stage:  # a stage that is faster than usual is killed at its end
            time.sleep(self.place.pause)
        if process.poll() is None:
            what = self._strike(kill, process, engine)
            stage = self._stage(process) or kill.stage
            self.tally.kills[engine, stage, what] += 1
            self._say(seed, f"{what} killed in {stage}")

    def _strike(self, kill: Kill, process: Driver, engine: str) -> str:
        """Kills a process and returns its kind. If no process of the drawn kind will appear any more, kills the driver."""
        nodes = self.cluster if engine == "ray" else None
        if kill.target not in ("driver", "cluster") and (found := self._await(kill, process, engine)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[int(kill.which * len(found))], signal.SIGKILL)
            if kill.target == "raylet" and nodes is not None:
                nodes.add({"CPU": 1})
            return kill.target
        process.kill()
        if kill.target == "cluster" and nodes is not None:
            nodes.close()
            self.cluster = None
            return kill.target
        return "driver"

    def _await(self, kill: Kill, process: Driver, engine: str) -> list[int]:
        """Returns the processes of the drawn kind as soon as there are any; none when the run has passed the stages with such processes."""
        until = time.monotonic() + PATIENCE
        while process.poll() is None and self._stage(process) in victims.places(kill.target, engine):
            if found := victims.find(kill.target, process.pid, self.cluster if engine == "ray" else None):
                return found
            if time.monotonic() > until:
                break
            time.sleep(self.place.pause)
        return []

    def _end(self, process: Driver | None, engine: str, seed: str) -> None:
        """Restarts the run until it ends successfully."""
        for _ in range(3):
            if process is None or process.poll() is not None:
                self._check_end(seed, process)
                process = self._start(self.place.run, engine)
            code = process.wait(PATIENCE)
            if code == 0:
                return
            if code is None:
                where = self._stage(process)
                process.kill()
                self._fault(seed, f"it hangs in {where}")
        self._fault(seed, f"it does not come to its end: {process.said() if process else None}")

    def _check_end(self, seed: str, process: Driver | None) -> None:
        """Checks that a run that lost a process, but was not killed itself, ends with a sentence if it fails, and never with a trace."""
        if process is not None and process.poll() not in (0, -signal.SIGKILL):
            said = process.said()
            kind = self._fault if "Traceback" in said else self._note
            kind(seed, f"exit code {process.poll()}: {said[-600:]}")

    def _say(self, seed: str, what: str) -> None:
        print(f"{time.monotonic() - self.began:>6.0f} s, run {seed}: {what}", flush=True)

    def _note(self, seed: str, what: str) -> None:
        self._say(seed, f"note: {what}")

    def _fault(self, seed: str, what: str) -> None:
        self._say(seed, f"FAULT: {what}")
        self.tally.faults.append(f"run {seed}: {what}")
        self.place.copy(self.folder / f"faulty-{seed}")

    def _compare(self, seed: str) -> None:
        found, wanted, tally = self.place.look(), self.wanted, self.tally
        differ = sorted(path for path in found.tree.keys() | wanted.tree.keys() if found.tree.get(path) != wanted.tree.get(path))
        lost = sum((wanted.documents[stage] - documents).total() + (documents - wanted.documents[stage]).total()
                   for stage, documents in found.documents.items())  # fmt: skip
        tally.runs, tally.files = tally.runs + 1, tally.files + len(found.tree)
        tally.differ, tally.lost = tally.differ + len(differ), tally.lost + lost
        more = sorted(found.rest - wanted.rest)
        for what, names in (("these files differ", differ), ("left behind", more), ("verify", found.wrong)):
            if names:
                self._fault(seed, f"{what}: {', '.join(names[:8])}")

    def close(self) -> None:
        """Ends all started processes: a driver has a session of its own, so neither Ctrl-C nor the end of this process reaches it."""
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
        if self.cluster is not None:
            self.cluster.close()
        self.place.close()


def show(tally: Tally, seconds: float, more: str) -> None:
    for engine in sorted({engine for engine, _, _ in tally.kills}):
        targets = sorted({target for where, _, target in tally.kills if where == engine})
        rows = {stage: [tally.kills[engine, stage, target] for target in targets] for stage in STAGES}
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
        print(f"{'on ' + engine:<10}" + "".join(f"{target:>9}" for target in targets) + f"{'all':>9}")
        for stage, row in rows.items():
            print(f"{stage:<10}" + "".join(f"{count:>9}" for count in row) + f"{sum(row):>9}")
    kills = tally.kills.total()
    print(
        f"kills {kills}, runs {tally.runs}, files compared {tally.files:,}, files that differ {tally.differ}, "
        f"documents lost or doubled {tally.lost}, faults {len(tally.faults)}{more}, seconds {seconds:.0f} "
        f"({seconds / max(1, kills):.1f} a kill)"
    )


def terminate(*_: object) -> None:
    """Closes everything at SIGTERM, too, and ignores further ones: `timeout` sends it twice, and the second would interrupt the closing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", action="store_true", help="runs lie in a bucket of an S3 server that fails now and then")
    parser.add_argument("--only", choices=sorted(set(ENGINES)), help="all runs on this engine")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="RUN", help="go on with this run of the seed")
    parser.add_argument(
        "--folder", type=Path, help="keeps the undisturbed run for the next time, and the runs in which something was wrong"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminate)
    servers.announce()
    load()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        place = Store(folder) if options.store else Disk(folder)
        soak = Soak(folder, place)
        try:
            soak.prepare()
            for number in range(options.first, options.first + options.kills):
                engine = options.only or ENGINES[number % len(ENGINES)]
                with place.unwell():
                    soak.one_run(f"{options.seed}-{number}", engine, options.kills - soak.tally.kills.total())
                if soak.tally.kills.total() >= options.kills:
                    break
        finally:  # shows the faults found before Ctrl-C, too
            soak.close()
            show(soak.tally, time.monotonic() - soak.began, place.said())
    return 1 if soak.tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
