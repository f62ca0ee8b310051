"""Serves the explorer of a run in this process on a free loopback port, and computes the expected page by pandas."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pyarrow.parquet as pq
from waiting import drawn, until


@contextmanager
def explored(folder: Path, write: bool = False) -> Iterator[str]:
    """Yields the address of the page of a run (once all reports are read) or of a folder of runs; with `write`, without the token."""
    with consoled(folder, write) as (_, address):
        yield address


@contextmanager
def consoled(folder: Path, write: bool = False) -> Iterator[tuple[Any, str]]:
    """Yields the console that is served, and its address without the token."""
    import uvicorn

    from corpusmill.report.explore.console import Console
    from corpusmill.report.explore.server import HOST, LoopbackGuard, listen, make_app

    console = Console(str(folder), write=write)
    if console.one:
        console.explorer("").loader.join()
    listening = listen(0)
    port = listening.getsockname()[1]
    # uvicorn's log configuration would close handlers of other libraries, and with absl's the stream that pytest captures
    server = uvicorn.Server(uvicorn.Config(LoopbackGuard(make_app(console), port, console.token), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield console, f"http://{HOST}:{port}/"
    finally:
        server.should_exit = True
        thread.join(timeout=60)
        console.stop()


def answer(address: str, path: str) -> Any:
    """Returns an answer of the API."""
    with urlopen(f"{address}api/{path}") as response:
        return json.load(response)


def decisions(folder: Path) -> pd.DataFrame:
    """Returns the filter stage's report, with each document's host."""
    report = pd.concat([pq.read_table(path).to_pandas() for path in sorted((folder / "filter/report").iterdir())], ignore_index=True)
    return report.assign(host=report["url"].str.extract("//([^/]+)/", expand=False))


def fired(decided: pd.DataFrame, *rules: str) -> pd.Series:
    """Returns bool (rows): all of these rules failed."""
    return decided["failed"].map(lambda failed: set(rules) <= set(failed))


def only(decided: pd.DataFrame, rule: str) -> pd.Series:
    """Returns bool (rows): this rule failed, and no other."""
    return decided["failed"].map(lambda failed: list(failed) == [rule])


def expect_counts(page: Any, decided: pd.DataFrame, wanted: pd.Series) -> None:
    """Checks that the sentence above the list, the listed keys and the counts of rules are those of the expected rows."""
    rows = decided[wanted]
    until(page, f"document.getElementById('count').textContent.startsWith('{len(rows)} document')")
    said = drawn(page).inner_text("#count")
    if len(rows) and page.locator("input[name=decision]:checked").input_value() == "":
        share = "100.0%" if rows["kept"].all() else f"{rows['kept'].mean():.1%}"
        assert f"{share} of them kept" in said
    listed = page.eval_on_selector_all("#list tr", "rows => rows.map(row => Number(row.dataset.doc.split('/')[1]))")
    assert sorted(listed) == sorted(rows.index)[: len(listed)] and len(listed) == min(50, len(rows))
    counts = {rule: (int(fired(rows, rule).sum()), int(only(rows, rule).sum())) for rule in ("short", "symbols", "language")}
    for rule, (both, alone) in counts.items():
        shown = page.locator("#rule-list li", has=page.get_by_text(rule, exact=True)).locator(".number").inner_text()
        assert shown == f"{both} ({alone})"
