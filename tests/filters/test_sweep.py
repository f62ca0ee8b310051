"""What each threshold keeps, against runs of the stage with that threshold."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpusmill.filters.whatif import sweep
from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage

STEPS = ["gopher_repetition", "gopher_quality", "fineweb_quality"]


def write_run(folder: Path, section: dict[str, Any]) -> None:
    resolved = FilterConfig.model_validate(section).model_dump(mode="json")
    (folder / "run.json").write_text(json.dumps({"inputs": [], "recipe": {"filter": resolved}}))


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_documents, finished_ingest, run_filter, texts) -> Storage:
    folder = tmp_path_factory.mktemp("sweep")
    storage = finished_ingest(folder, [make_documents(texts[::3]), make_documents([]), make_documents(texts[1::3])])
    run_filter(storage, {"steps": STEPS})
    write_run(folder, {"steps": STEPS})
    return storage


def kept(storage: Storage) -> tuple[int, int]:
    rows = [row for part in range(3) for row in read_table(storage, f"filter/report/part-0000{part}.parquet").to_pylist()]
    return sum(row["kept"] for row in rows), sum(row["chars_in"] for row in rows if row["kept"])


@pytest.mark.parametrize(("rule", "first", "last"), [("gopher_short_doc", 0, 400), ("line_punct_ratio", 0, 0.9), ("list_ratio", 0.0, 0.3)])
def test_as_the_stage_itself_decides(
    tmp_path: Path, make_documents, finished_ingest, run_filter, texts, run, rule: str, first: float, last: float
) -> None:
    found = sweep(run.root, rule, first, last, 3)
    assert found.documents == len(texts[::3]) + len(texts[1::3]) and found.characters == sum(map(len, texts[::3] + texts[1::3]))
    others = [r.rule.name for r in rules_of(STEPS) if r.rule.name != rule]
    for row in found.rows:
        for name, thresholds in (("together", {}), ("alone", dict.fromkeys(others))):
            folder = tmp_path / f"{row.threshold}-{name}"
            storage = finished_ingest(folder, [make_documents(texts[::3]), make_documents([]), make_documents(texts[1::3])])
            run_filter(storage, {"steps": STEPS, "thresholds": {**thresholds, rule: row.threshold}})
            assert kept(storage) == (getattr(row, f"{name}_documents"), getattr(row, f"{name}_characters"))


def rules_of(steps: list[str]) -> list[Any]:
    from corpusmill.filters.worker import rule_table

    return rule_table(FilterConfig.model_validate({"steps": steps}))


def test_thresholds_are_round_numbers_with_both_ends(run: Storage) -> None:
    assert [row.threshold for row in sweep(run.root, "list_ratio", 0.1, 0.7, 7).rows] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [row.threshold for row in sweep(run.root, "list_ratio", 0.1, 0.7, 1).rows] == [0.1]
    assert sweep(run.root, "list_ratio", 0.1, 0.7, 7).now == 0.3


def test_a_rule_that_is_off(tmp_path: Path, make_documents, finished_ingest, run_filter, texts) -> None:
    storage = finished_ingest(tmp_path, [make_documents(texts[:200])])
    section = {"steps": STEPS, "thresholds": {"gopher_short_doc": None}}
    run_filter(storage, section)
    write_run(tmp_path, section)
    found = sweep(storage.root, "gopher_short_doc", 0, 1000, 3)
    assert found.now is None
    assert found.rows[0].alone_documents == 200 > found.rows[-1].alone_documents


def test_the_command(run: Storage, tmp_path: Path, corpusmill: Callable) -> None:
    call = ("sweep", run.root, "--rule", "gopher_short_doc", "--from", 0, "--to", 100, "--steps", 3)
    expected = sweep(run.root, "gopher_short_doc", 0, 100, 3)
    code, out, _ = corpusmill(*call, "--plot", tmp_path / "plot.html")
    assert code == 0 and "50" in out.decode() and "now ▸ 50" in out.decode() and "█" in out.decode()
    page = (tmp_path / "plot.html").read_text()
    assert "Plotly.newPlot" in page and 'src="http' not in page and "gopher_short_doc" in page
    code, out, _ = corpusmill(*call, "--json")
    assert json.loads(out) == json.loads(json.dumps(expected.as_json()))
    code, out, _ = corpusmill(*call, "--csv")
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert [int(row["together_documents"]) for row in rows] == [row.together_documents for row in expected.rows]
    code, _, error = corpusmill(*call, "--plot", tmp_path / "no" / "plot.html")
    assert code == 2 and "can't be written (No such file or directory)" in error


def test_what_it_refuses(run: Storage, tmp_path: Path, make_documents, finished_ingest) -> None:
    with pytest.raises(InputError, match=r"--rule shrot: no such rule \(expected one of repetition_empty"):
        sweep(run.root, "shrot", 0, 1, 2)
    finished_ingest(tmp_path, [make_documents([])])
    write_run(tmp_path, {"steps": [{"language": {"keep": ["en"]}}]})
    with pytest.raises(InputError, match="compares with a list"):
        sweep(str(tmp_path), "language", 0, 1, 2)
    with pytest.raises(InputError, match="is not finished"):
        sweep(str(tmp_path), "language_score", 0, 1, 2)
