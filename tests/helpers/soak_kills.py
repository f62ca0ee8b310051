"""Kills runs of all stages at random times, again and again, until each has come to its end, and compares them with one that nobody killed.

    python tests/helpers/soak_kills.py --kills 200 --seed 1 [--folder FOLDER]

Each run gets one to three kills (SIGKILL) a stage: the stage is chosen first, then what is killed, then when, as a share of the time
that the stage usually takes. A run whose driver was killed is started again. Every third run is on a Ray cluster of two raylets.
Drivers are forked from this process, which has their libraries loaded. Prints what was killed where, and what was wrong; exit code 1
where anything was.
"""

import argparse
import contextlib
import importlib
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import victims
from forked import Driver
from raylets import Raylets
from trees import leftovers, tree
from whole_run import STAGES, ids, write_inputs

from corpusmill.pipeline.recipe import stage_class
from corpusmill.pipeline.report.whole.verify import verify

#: Kills of a stage in one run: one, and by these chances a second and a third.
MORE = (0.45, 0.2)
#: What is killed, and how often in 10, where such a process turns up; else it is the driver with all its processes.
TARGETS = {"inline": {"driver": 7, "child": 3}, "ray": {"driver": 3, "worker": 3, "child": 1, "raylet": 2, "cluster": 1}}
#: Stages that a Ray cluster works on.
PARALLEL = STAGES[:5]
#: Seconds in which a run has to end or to get on.
PATIENCE = 300.0
#: Seconds in which a process of the kind that is to be killed has to turn up.
WAITED = 3.0
LOOK = 0.01


@dataclass
class Tally:
    """What was done and what was found."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  # by stage and target
    runs: int = 0
    files: int = 0
    differ: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kill:
    stage: str
    target: str
    share: float  # of the stage's usual time


def drawn(seed: str, engine: str) -> list[Kill]:
    """The kills of one run, in the order of its stages."""
    draw = random.Random(seed)
    kills = []
    for stage in STAGES:
        targets = TARGETS[engine] if stage in PARALLEL else TARGETS["inline"]
        count = 1 + sum(draw.random() < chance for chance in MORE)
        names = draw.choices(list(targets), list(targets.values()), k=count)
        kills += [Kill(stage, name, draw.random()) for name in names]
    return kills


def load() -> None:
    """Imports what drivers need, so that they are forked with it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_MODE": "token"}  # Ray reads them once a process
    for stage in STAGES:
        stage_class(stage)
    for name in ("ray", "torch", "tokenizers", "transformers", "corpusmill.train.pretrain_job", "corpusmill.pipeline.report.page.html"):
        importlib.import_module(name)


class Soak:
    """`folder` takes the inputs, the undisturbed run (`reference`) and the run that is being killed (`run`)."""

    def __init__(self, folder: Path):
        self.folder, self.run, self.tally = folder, folder / "run", Tally()
        self.cluster: Raylets | None = None
        self.driver: Driver | None = None  # the last one; those before it have ended
        if not (folder / "reference" / "report.html").exists():
            shutil.rmtree(folder / "reference", ignore_errors=True)
            write_inputs(folder)
            self._reference()
        self.wanted, self.rest = tree(folder / "reference"), leftovers(folder / "reference")
        self.documents = ids(folder / "reference")
        self.usual = victims.stage_seconds(folder / "reference")

    def _reference(self) -> None:
        try:
            begun = self._start(self.folder / "reference", "inline")
            assert begun.wait(PATIENCE) == 0, begun.said()
        except BaseException:
            self.close()
            raise

    def one_run(self, seed: str, engine: str, most: int) -> None:
        """A run that is killed up to `most` times, carried to its end and compared."""
        shutil.rmtree(self.run, ignore_errors=True)
        process: Driver | None = None
        for kill in drawn(seed, engine)[:most]:
            if process is None or process.poll() is not None:
                self._check_end(seed, process)
                process = self._start(self.run, engine)
            self._one_kill(kill, process, engine, seed)
        self._end(process, engine, seed)
        self._compare(seed)

    def _start(self, run: Path, engine: str) -> Driver:
        environment = {}
        if engine == "ray":
            if self.cluster is None:
                self.cluster = Raylets()
            environment = self.cluster.environment
        command = ["run", str(self.folder / "whole.yaml"), str(self.folder / "crawl"), "--output", str(run), "--engine", engine]
        self.driver = Driver(command, self.folder / "output.txt", environment)
        return self.driver

    def _one_kill(self, kill: Kill, process: Driver, engine: str, seed: str) -> None:
        """Waits until the run is in the stage, then for the drawn share of its usual time, and kills."""
        until = time.monotonic() + PATIENCE
        while (stage := victims.stage_of(self.run, process.pid)) is None or STAGES.index(stage) < STAGES.index(kill.stage):
            if process.poll() is not None:
                return
            if time.monotonic() > until:
                self._fault(seed, f"it does not get on to {kill.stage}")
                process.kill()
                return
            time.sleep(LOOK)
        time.sleep(kill.share * self.usual[kill.stage])
        if process.poll() is None:
            what = self._strike(kill.target, process, engine)
            self.tally.kills[victims.stage_of(self.run, process.pid) or kill.stage, what] += 1

    def _strike(self, target: str, process: Driver, engine: str) -> str:
        """Kills; says what. Where there is no such process right now, it is the driver."""
        nodes = self.cluster if engine == "ray" else None
        found, until = None, time.monotonic() + WAITED
        while target not in ("driver", "cluster") and process.poll() is None and time.monotonic() < until:
            if found := victims.find(target, process.pid, nodes):
                break
            time.sleep(LOOK)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found, signal.SIGKILL)
            if target == "raylet" and nodes is not None:
                nodes.add({"CPU": 1})
            return target
        process.kill()
        if target == "cluster" and nodes is not None:
            nodes.close()
            self.cluster = None
            return target
        return "driver"

    def _end(self, process: Driver | None, engine: str, seed: str) -> None:
        """Starts the run again until it has come to its end."""
        for _ in range(3):
            if process is None or process.poll() is not None:
                self._check_end(seed, process)
                process = self._start(self.run, engine)
            code = process.wait(PATIENCE)
            if code == 0:
                return
            if code is None:
                self._fault(seed, f"it hangs in {victims.stage_of(self.run, process.pid)}")
                process.kill()
        self._fault(seed, f"it does not come to its end: {process.said() if process else None}")

    def _check_end(self, seed: str, process: Driver | None) -> None:
        """A run that was not killed itself but lost a process may end with a sentence, and never with a trace."""
        if process is not None and process.poll() not in (0, -signal.SIGKILL):
            said = process.said()
            kind = self._fault if "Traceback" in said else self._note
            kind(seed, f"exit code {process.poll()}: {said[-600:]}")

    def _note(self, seed: str, what: str) -> None:
        print(f"  note, run {seed}: {what}", flush=True)

    def _fault(self, seed: str, what: str) -> None:
        print(f"  FAULT, run {seed}: {what}", flush=True)
        self.tally.faults.append(f"run {seed}: {what}")
        if self.run.is_dir():
            shutil.copytree(self.run, self.folder / f"faulty-{seed}", dirs_exist_ok=True)

    def _compare(self, seed: str) -> None:
        found, tally = tree(self.run), self.tally
        differ = sorted(path for path in found.keys() | self.wanted.keys() if found.get(path) != self.wanted.get(path))
        more = sorted(leftovers(self.run) - self.rest)
        wrong = [fault for check in verify(str(self.run)) for fault in check.faults]
        documents = ids(self.run)
        lost = sum(((self.documents[stage] - documents[stage]) + (documents[stage] - self.documents[stage])).total() for stage in documents)
        tally.runs, tally.files = tally.runs + 1, tally.files + len(found)
        tally.differ, tally.lost = tally.differ + len(differ), tally.lost + lost
        for what, names in (("these files differ", differ), ("left behind", more), ("verify", wrong)):
            if names:
                self._fault(seed, f"{what}: {', '.join(names[:8])}")

    def close(self) -> None:
        """Ends what was started: a driver has a session of its own, so Ctrl-C and the end of this process do not reach it."""
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
        if self.cluster is not None:
            self.cluster.close()


def show(tally: Tally, seconds: float) -> None:
    targets = sorted({target for _, target in tally.kills})
    print(f"{'stage':<10}" + "".join(f"{target:>9}" for target in targets) + f"{'all':>9}")
    for stage in STAGES:
        row = [tally.kills[stage, target] for target in targets]
        print(f"{stage:<10}" + "".join(f"{count:>9}" for count in row) + f"{sum(row):>9}")
    print(
        f"kills {tally.kills.total()}, runs {tally.runs}, files compared {tally.files:,}, files that differ {tally.differ}, "
        f"documents lost or doubled {tally.lost}, faults {len(tally.faults)}, seconds {seconds:.0f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=["inline", "ray", "both"], default="both")
    parser.add_argument(
        "--folder", type=Path, help="keeps the undisturbed run for the next time, and the runs in which something was wrong"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is closed then, too
    started = time.monotonic()
    load()
    with tempfile.TemporaryDirectory() as temporary:
        soak = Soak((options.folder or Path(temporary)).absolute())
        try:
            while (left := options.kills - soak.tally.kills.total()) > 0 and soak.tally.runs < options.kills:
                number = soak.tally.runs
                engine = options.engine if options.engine != "both" else ("inline", "inline", "ray")[number % 3]
                soak.one_run(f"{options.seed}-{number}", engine, left)
                print(f"run {options.seed}-{number} on {engine}: {soak.tally.kills.total()} kills so far", flush=True)
        finally:
            soak.close()
    show(soak.tally, time.monotonic() - started)
    return 1 if soak.tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
