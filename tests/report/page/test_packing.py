"""Tests that page and terminal show the empty places of packing, and the shares of a mixture."""

import json
from pathlib import Path

from token_sets import random_documents, write_token_set

from corpusmill.report.page.html import write_report
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.queries.tokens import Component, Packing, packings


def test_packing_is_reported(tmp_path: Path) -> None:
    described = write_token_set(tmp_path / "tokens" / "train", random_documents(2, 40, 50), pack=(32, 64))
    (tmp_path / "run.json").write_text("{}")
    told = described.packing()
    found = packings({"train": json.loads((tmp_path / "tokens" / "train" / "shards.json").read_text())})
    assert found == [Packing("train", each["length"], each["rows"], each["padding"], each["waste"]) for each in told] and len(found) == 2
    page = Path(write_report(str(tmp_path))).read_text()
    for each in told:
        assert f'<td class="number">{each["rows"]:,}</td><td class="number">{each["padding"]:,}</td>' in page


def test_the_mixture_is_reported(tmp_path: Path) -> None:
    write_token_set(tmp_path / "tokens" / "train", random_documents(2, 40, 50))
    (tmp_path / "run.json").write_text("{}")
    good = {"name": "<b>wiki", "wanted": 9_000, "there": 2_000, "tokens": 4_000, "epochs": 2.0, "short": 5_000}
    (tmp_path / "tokens" / "plan.json").write_text(json.dumps({"mixture": [good, {"name": "cut"}, None, {**good, "epochs": "many"}]}))
    assert read_summary(str(tmp_path)).mixture == [Component(**good)]  # type: ignore[arg-type]
    page = Path(write_report(str(tmp_path))).read_text()
    assert '<td>&lt;b&gt;wiki</td><td class="number">2,000</td><td class="number">9,000</td><td class="number">4,000</td>' in page
    (tmp_path / "tokens" / "plan.json").write_text(json.dumps({"mixture": 7}))
    assert read_summary(str(tmp_path)).mixture == []
