"""Makes a run of random decisions, shared by the tests of all queries."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from random_run import write_random_run

from corpusmill.report.queries.summary import HELD
from corpusmill.report.query.run import Run


@pytest.fixture(scope="session")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "run"
    write_random_run(folder)
    return folder


@pytest.fixture(scope="session")
def opened_random_run(random_run: Path) -> Iterator[Run]:
    with Run(str(random_run)) as run:
        run.hold(HELD)
        yield run
