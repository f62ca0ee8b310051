"""Tests the comparison of two runs: its figures are those of pandas on the reports' rows."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from built_run import RunBuilder, documents, report, write_run
from printing import printed
from typer.testing import CliRunner

from corpusmill.cli import app
from corpusmill.pipeline.errors import InputError
from corpusmill.report.answers.diff import QUANTILES, Difference, DiffOptions, chance, compare
from corpusmill.report.answers.why import explain
from corpusmill.report.page.html import write_report

FIELDS = [pa.field(name, pa.float64()) for name in ("score", "length_ratio")] + [
    pa.field("words", pa.int64()),
    pa.field("good", pa.bool_()),
]


def crawl(generator: np.random.Generator, rows: int) -> pd.DataFrame:
    """Makes documents with measured values; about one in eight has the id of another, like a page that a crawl holds twice."""
    ids = [f"{number:032x}" for number in generator.integers(0, 4 * rows, rows)]
    frame = pd.DataFrame({"id": ids, "words": generator.integers(0, 60, rows), "good": generator.random(rows) < 0.5})
    frame["score"] = np.where(generator.random(rows) < 0.1, np.nan, generator.normal(size=rows))
    frame["length_ratio"] = generator.random(rows).round(1)
    frame = frame.groupby("id", sort=False, group_keys=False)[frame.columns].apply(lambda same: pd.concat([same.iloc[:1]] * len(same)))
    return frame.reset_index(drop=True)


def decided(frame: pd.DataFrame, least: int, most: float) -> pd.DataFrame:
    """Makes the filter's report with two rules."""
    short, bad = frame["words"] < least, frame["score"] > most
    failed = [[*(["short"] if s else []), *(["bad"] if b else [])] for s, b in zip(short, bad, strict=True)]
    kept = ~(short | bad)
    return frame.assign(kept=kept, failed=failed, chars_in=frame["words"] * 5, chars_out=frame["words"] * 5 * kept)


def deduplicated(frame: pd.DataFrame, every: int) -> pd.DataFrame:
    """Makes the dedup stage's report: of equal ids one stays, and of the others all but those at each `every`th word count."""
    first = ~frame["id"].duplicated()
    near = frame["words"] % every == 0
    failed = [["exact_duplicate"] if not f else ["near_duplicate"] if n else [] for f, n in zip(first, near, strict=True)]
    kept = first & ~near
    return frame.assign(kept=kept, failed=failed, chars_in=frame["chars_out"], chars_out=frame["chars_out"] * kept)


def write(folder: Path, stages: dict[str, pd.DataFrame], shards: int) -> str:
    run = RunBuilder(folder)
    run.json("run.json", {"inputs": ["crawl"], "recipe": {"filter": {"steps": [{"own": {}}]}}, "versions": {"numpy": "1"}})
    for stage, frame in stages.items():
        rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in frame.to_dict("records")]
        parts = []
        for number in range(shards):
            some = rows[number::shards]
            kept = [{**r, "url": f"http://h{r['words'] % 3}.test/", "source": "s", "text": "", "language": "en"} for r in some if r["kept"]]
            parts.append({
                f"report/part-{number:05d}.parquet": report(some, FIELDS if stage == "filter" else []),
                f"data/part-{number:05d}.parquet": documents(kept, [pa.field("language", pa.string())]),
            })  # fmt: skip
        run.stage(stage, parts)
    return str(folder)


def chained(frame: pd.DataFrame, least: int, most: float, every: int) -> dict[str, pd.DataFrame]:
    filtered = decided(frame, least, most)
    return {"filter": filtered, "dedup": deduplicated(filtered[filtered["kept"]], every)}


def fates(stages: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns one row for each document with its number among those of its id, kept ones first: the slow way."""
    parts = [frame[~frame["kept"]].assign(stage=stage) for stage, frame in stages.items()]
    last = list(stages)[-1]
    every = pd.concat([*parts, stages[last][stages[last]["kept"]].assign(stage=last)])
    every["level"] = every["stage"].map(list(stages).index)
    every["rules"], every["names"] = every["failed"].str.len(), every["failed"].str.join(",")
    every = every.sort_values(["kept", "level", "rules", "names"], ascending=[False, False, True, True])
    return every.assign(copy=every.groupby("id").cumcount())


def test_figures_are_those_of_pandas(tmp_path: Path) -> None:
    frame = crawl(np.random.default_rng(0), 300)
    seen = frame.sample(frac=0.9, random_state=0)  # the second run had a part of the crawl
    a, b = chained(frame, 10, 1.5, 7), chained(seen, 14, 1.2, 5)
    found = compare(write(tmp_path / "a", a, 3), write(tmp_path / "b", b, 2), DiffOptions(samples=4))
    for width in (40, 100):
        lines = printed(found.show, width=width).splitlines()
        assert all(len(line) <= width for line in lines if not line.startswith("All about one"))
    counts = (a["dedup"]["kept"].sum(), b["dedup"]["kept"].sum())
    assert "A keeps {:,} documents, B {:,}".format(*counts) in " ".join(lines)
    assert any(line.split()[:3] == ["kept", "by", "A"] and str(found.of("only_a").documents) in line.split() for line in lines)
    both = fates(a).merge(fates(b), on=["id", "copy"], how="outer", suffixes=("_a", "_b"))

    def kept(side: str, value: bool) -> "pd.Series[bool]":
        return both[f"kept_{side}"].eq(value).fillna(False).astype(bool)

    expected = {
        "both": both[kept("a", True) & kept("b", True)], "only_a": both[kept("a", True) & kept("b", False)],
        "only_b": both[kept("a", False) & kept("b", True)], "neither": both[kept("a", False) & kept("b", False)],
        "kept_unseen_b": both[kept("a", True) & both["kept_b"].isna()], "dropped_unseen_b": both[kept("a", False) & both["kept_b"].isna()],
    }  # fmt: skip
    assert {name: counts.documents for name, counts in found.counts.items()} == {n: len(rows) for n, rows in expected.items() if len(rows)}
    assert found.of("only_a").characters == expected["only_a"]["chars_out_a"].sum()
    assert found.of("only_b").characters == expected["only_b"]["chars_out_b"].sum()
    assert found.kept("a") == a["dedup"]["kept"].sum() and found.kept("b") == b["dedup"]["kept"].sum()
    _check_rules(found, expected)
    _check_columns(found, a, b)
    for name, other in (("only_a", "b"), ("only_b", "a")):
        rows = {(row["id"], row[f"stage_{other}"]) for row in expected[name].to_dict("records")}
        assert len(found.samples[name]) == min(4, len(rows)) and {(s.row["id"], s.stage) for s in found.samples[name]} <= rows


def test_a_report_shows_the_change_against_another_run(tmp_path: Path) -> None:
    frame = crawl(np.random.default_rng(0), 300)
    write(tmp_path / "old", a := chained(frame, 10, 1.5, 7), 3)
    write(tmp_path / "new", b := chained(frame, 14, 1.2, 5), 2)
    found = compare(str(tmp_path / "old"), str(tmp_path / "new"), DiffOptions())
    page = Path(write_report(str(tmp_path / "new"), against=found)).read_text()
    kept = [int(stages["dedup"]["kept"].sum()) for stages in (a, b)]
    head, section = page.partition("</header>")[0], page[page.index('<h2 id="against">') : page.index('<h2 id="funnel">')]
    assert f"it keeps {kept[0]:,}, this run {kept[1]:,} (−{kept[0] - kept[1]:,})" in head
    for name in ("both", "only_a", "only_b", "neither"):
        assert f'<td class="number">{found.of(name).documents:,}</td><td class="number">{found.of(name).characters:,}</td>' in section
    moved = {rule.rule: rule.other_keeps for rule in found.rules if rule.weight}
    rows = re.findall(r'<td class="name">\w+: (.*?)</td>.*?<td class="number">([\d,]+)</td><td class="number">([\d,]+)</td></tr>', section)
    assert {name.replace("<wbr>", ""): {"a": int(one), "b": int(other)} for name, one, other in rows} == moved
    result = CliRunner().invoke(app, ["report", str(tmp_path / "new"), "--against", str(tmp_path / "old")])
    assert f"A keeps {kept[0]:,} documents, B {kept[1]:,}" in result.output
    with pytest.raises(InputError, match="no such run"):
        compare(str(tmp_path / "none"), str(tmp_path / "new"), DiffOptions())


def _check_rules(found: Difference, expected: dict[str, pd.DataFrame]) -> None:
    for name, side in (("only_b", "a"), ("only_a", "b")):  # documents that the other run keeps
        rows = expected[name]
        exploded = rows.explode(f"failed_{side}").groupby([f"stage_{side}", f"failed_{side}"]).size().to_dict()
        assert {(r.stage, r.rule): r.other_keeps[side] for r in found.rules if r.other_keeps[side]} == exploded
        alone = rows[rows[f"failed_{side}"].str.len() == 1].explode(f"failed_{side}").groupby(f"failed_{side}").size().to_dict()
        assert {r.rule: r.alone[side] for r in found.rules if r.alone[side]} == alone


def _check_columns(found: Difference, a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame]) -> None:
    """Compares values of the documents that the last stage keeps; of equal ids, as many as stay."""
    columns = {change.column: change for change in found.columns if change.stage == "filter"}
    assert list(columns) == sorted(columns, key=lambda name: -columns[name].distance) and "words" in columns  # type: ignore[operator]
    for name in ("score", "length_ratio", "words", "good"):
        values = {}
        for side, stages in (("a", a), ("b", b)):
            final = stages["dedup"][stages["dedup"]["kept"]]
            values[side] = final[name].astype(float)
            run = columns[name].runs[side]
            assert (run.values, run.missing) == (values[side].notna().sum(), values[side].isna().sum())
            assert run.mean == pytest.approx(values[side].mean())
            assert run.quantiles == pytest.approx(values[side].quantile(list(QUANTILES)).tolist())
        points = pd.concat([values["a"], values["b"]]).dropna().unique()
        apart = max(abs((values["a"].dropna() <= x).mean() - (values["b"].dropna() <= x).mean()) for x in points)
        assert columns[name].distance == pytest.approx(apart)


def compared(a: Path | str, b: Path | str, width: int = 80, **wanted: Any) -> str:
    return printed(compare(str(a), str(b), DiffOptions(**wanted)).show, width=width)


def test_a_run_without_a_stage_is_compared_all_the_same(run_folder: Path, tmp_path: Path) -> None:
    """A document that one run's filter drops has a counterpart only if the other run decided about it."""
    write_run(tmp_path / "run", ("ingest",))
    found = compare(str(run_folder), str(tmp_path / "run"), DiffOptions(samples=0))
    assert found.stages == ["ingest"] and {name: c.documents for name, c in found.counts.items()} == {"both": 56, "neither": 4}
    shutil.copytree(run_folder, tmp_path / "unfiltered")
    shutil.rmtree(tmp_path / "unfiltered" / "filter")
    found = compare(str(run_folder), str(tmp_path / "unfiltered"), DiffOptions(samples=0))
    assert found.stages == ["ingest", "dedup"] and found.of("both").documents == 42
    assert found.of("dropped_unseen_b").documents == 11 and "B has no filter." in found.notes


def test_half_a_run_and_a_damaged_shard_are_said(run_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    manifest, shard = run / "filter" / "manifest.jsonl", run / "ingest" / "report" / "part-00001.parquet"
    manifest.write_bytes(manifest.read_bytes().splitlines(keepends=True)[0])
    content = bytearray(shard.read_bytes())
    content[100:2000] = bytes(byte ^ 0x5A for byte in content[100:2000])
    shard.write_bytes(content)
    for runs, side in (((run_folder, run), "B"), ((run, run_folder), "A")):
        text = " ".join(compared(*runs).split())
        assert f"{side}: filter not finished, so it has not decided about all documents yet." in text
        assert f"Note: {side}: ingest: a shard is left out:" in text
    assert "Note: filter not finished" in printed(explain(str(run), "http://host1.test/page-10.html").show)


def test_the_distance_that_chance_explains() -> None:
    """For separate documents it is Kolmogorov's; a simulation shows it where runs share documents."""
    stats = pytest.importorskip("scipy.stats")
    for a, b, columns in ((1000, 3000, 1), (20_000, 500, 40)):
        assert chance(a, b, 0, columns) == pytest.approx(stats.kstwobign.isf(0.01 / columns) * math.sqrt(1 / a + 1 / b), rel=1e-3)
    above = above_half = 0
    random, rounds = np.random.default_rng(1), 400
    for _ in range(rounds):
        shared, one, other = (random.normal(size=size) for size in (900, 100, 300))
        distance = stats.ks_2samp(np.concatenate([shared, one]), np.concatenate([shared, other])).statistic
        # one column: exceeded by 1 in 100 at most; half of that distance is exceeded often
        above += distance > chance(1000, 1200, 900, 1)
        above_half += distance > chance(1000, 1200, 900, 1) / 2
    assert above <= 0.02 * rounds and above_half >= 0.1 * rounds
    assert chance(500, 500, 500, 9) == 0
