"""Tests two commands on one run: the second is refused while the first works. If the first stalls, the second takes over; when the first
continues, it notices before it records anything.
"""

import re
import signal
import time
from pathlib import Path

import pytest
from faulty_run import VARIABLE, plant
from forked import Driver

TTL = 2


def files(tree, stage: Path) -> dict[str, str]:
    """Returns all files but the manifest, which on a store has an object for some rows."""
    return {name: digest for name, digest in tree(stage).items() if not name.startswith("manifest")}


@pytest.mark.parametrize("store", ["local", pytest.param("s3", marks=pytest.mark.long)])  # test_lease.py tests a takeover on a store
def test_a_second_run_is_refused_and_takes_over_what_stands_still(
    recipe_and_crawl, tmp_path: Path, request, reference: Path, tree, faults_of, store: str
) -> None:
    recipe, crawl = recipe_and_crawl
    s3 = request.getfixturevalue("s3") if store == "s3" else None
    run = f"{s3.bucket('two-runs')}/run" if s3 else str(request.getfixturevalue("ingested"))
    fault = tmp_path / "fault.json"
    plant(fault, kind="wait", when="class ZipFile")
    command = ("run", recipe, crawl, "--output", run, "--engine", "inline", "--to", "dedup")
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
    found = s3.download(run, tmp_path / "found") if s3 else Path(run)
    for stage in ("ingest", "filter", "dedup"):
        assert files(tree, found / stage) == files(tree, reference / stage)
    assert faults_of(run) == []
