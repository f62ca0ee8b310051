"""Opens the run of random decisions for the tests of all queries."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from corpusmill.report.queries.summary import HELD
from corpusmill.report.query.run import Run


@pytest.fixture(scope="session")
def opened_random_run(random_run: Path) -> Iterator[Run]:
    with Run(str(random_run)) as run:
        run.hold(HELD)
        yield run
