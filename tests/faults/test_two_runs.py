"""Tests two commands on one run: the second is refused while the first works. If the first stalls, the second takes over; when the first
continues, it notices before it records anything.
"""

import re
import signal
import time
from pathlib import Path

from faulty_run import VARIABLE, plant
from forked import Driver

TTL = 2


def test_a_second_run_is_refused_and_takes_over_what_stands_still(
    recipe_and_crawl, ingested: Path, tmp_path: Path, reference: Path, tree, faults_of
) -> None:
    """On a store, test_lease.py tests a takeover."""
    run, (recipe, crawl) = ingested, recipe_and_crawl
    fault = tmp_path / "fault.json"
    plant(fault, kind="wait", when="class ZipFile")
    command = ("run", recipe, crawl, "--output", str(run), "--engine", "inline", "--to", "dedup")
    lease = {"CORPUSMILL_LEASE_SECONDS": str(TTL)}
    drivers: list[Driver] = []

    def begin(name: str, environment: dict[str, str]) -> Driver:
        drivers.append(Driver(command, tmp_path / name, environment))
        return drivers[-1]

    try:
        first = begin("first", {VARIABLE: str(fault), **lease})
        until = time.monotonic() + 100
        while not fault.with_suffix(".reached").exists():
            assert first.poll() is None and time.monotonic() < until, first.said()
            time.sleep(0.05)

        second = begin("second", lease)
        assert second.wait(60) == 2, second.said()
        assert f"{run}: another corpusmill is working in this run right now" in second.said().splitlines()[-1]

        first.signal(signal.SIGSTOP)
        third = begin("third", lease)
        assert third.wait(100) == 0, third.said()
        fault.unlink()  # the first can continue its task as soon as it runs again
        first.signal(signal.SIGCONT)
        assert first.wait(60) not in (0, None), first.said()
        assert re.search(
            "another corpusmill has taken this run over|the process that worked on it has ended", first.said().splitlines()[-1]
        )
    finally:
        for driver in drivers:
            if driver.poll() is None:
                driver.kill()
    assert all(tree(run / stage) == tree(reference / stage) for stage in ("ingest", "filter", "dedup"))
    assert faults_of(run) == []
