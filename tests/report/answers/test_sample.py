import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from built_run import RunBuilder, pages
from printing import printed
from rich.console import Console

from corpusmill.report.answers.choose import Choice
from corpusmill.report.answers.sample import Draw, Samples, draw_samples, sample
from corpusmill.report.query.run import open_run


def draw(folder: Path, stage: str | None = None, count: int = 5, seed: int = 0, near: bool = False, **choice: Any) -> Samples:
    return draw_samples(open_run(str(folder)), stage, Choice(**choice), Draw(count, seed, near))


def shown(folder: Path, **choice: Any) -> str:
    chars, near = choice.pop("chars", 600), choice.pop("near", False)
    return printed(sample, str(folder), choice.pop("stage", None), Choice(**choice), Draw(5, 0, near, chars), False)


def by_hash(rows: list[dict[str, Any]], seed: int) -> list[str]:
    return sorted((row["id"] for row in rows), key=lambda id_: hashlib.md5(f"{id_}:{seed}".encode()).hexdigest())


def test_a_draw_is_an_order_by_the_hash_of_id_and_seed(run_folder: Path) -> None:
    rows = ds.dataset(run_folder / "filter" / "report").to_table().to_pylist()
    found = draw(run_folder, "filter", seed=1, kept=False)
    assert [row["id"] for row in found.rows] == by_hash([row for row in rows if not row["kept"]], 1)[:5]
    assert found.total == 11 and found.texts_of == "ingest"


def test_the_number_of_shards_changes_nothing(run_folder: Path, tmp_path: Path) -> None:
    table = ds.dataset(run_folder / "filter" / "report").to_table()
    shuffled = table.take(pc.sort_indices(table["chars_in"]))
    run = RunBuilder(tmp_path / "run")
    parts = [{f"report/part-{n:05d}.parquet": shuffled.slice(8 * n, 8)} for n in range(7)]
    run.stage("filter", parts)
    one, other = draw(run_folder, "filter", 12), draw(tmp_path / "run", "filter", 12)
    assert [row["id"] for row in one.rows] == [row["id"] for row in other.rows]
    assert other.texts_of is None and "(no text: nothing that was read of it is kept)" in shown(tmp_path / "run")


def test_near_means_nearest_on_both_sides(run_folder: Path) -> None:
    rows = ds.dataset(run_folder / "filter" / "report").to_table().to_pylist()
    dropped = [row for row in rows if "short" in row["failed"]]
    kept = sorted((row for row in rows if row["kept"]), key=lambda row: row["words"] - 20)
    found = draw(run_folder, count=6, near=True, rules=("short",))
    assert [row["id"] for row in found.rows] == [*by_hash(dropped, 0)[:3], *(row["id"] for row in kept[:3])]
    assert found.total == len(dropped) + len(kept)
    assert [row["words"] for row in draw(run_folder, count=2, near=True, rules=("short",), kept=True).rows] == [34, 35]
    alone = draw(run_folder, count=9, near=True, rules=("short",), kept=False, alone=True)
    assert len(alone.rows) == 4 and all(row["failed"] == ["short"] for row in alone.rows)


def test_frequent_words_are_counted(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [row["text"] for row in draw(run_folder, "filter", 9, kept=True).rows]
    counts = Counter(re.findall(r"[^\W\d_]+", " ".join(texts)))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:40]
    sample(str(run_folder), "filter", Choice(kept=True), Draw(9, words=True), True, Console())
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["word"] for row in rows] == expected and expected
    assert [row["share"] for row in rows] == [counts[word] / counts.total() for word in expected]


def test_texts_are_those_that_came_in(run_folder: Path) -> None:
    texts = {page["id"]: page["text"] for page in pages()}
    for stage, before in (("filter", "ingest"), ("dedup", "filter"), ("tokens", "dedup"), ("ingest", "ingest")):
        found = draw(run_folder, stage, 60)
        assert found.texts_of == before
        known = [row for row in found.rows if row["text"] is not None]
        assert known and all(texts[row["id"]].startswith(row["text"]) for row in known)
        assert all(row["kept"] for row in known) or stage != "ingest"


def test_what_is_printed(run_folder: Path) -> None:
    text = shown(run_folder, rules=("symbols",), chars=40)
    assert "symbol_ratio = 0.2 (fails if > 0.1, fails by 0.1)" in text
    assert "4 of 4 such documents of filter, drawn with seed 0" in text and "Texts as the stage ingest" in text
    assert f"corpusmill why {run_folder} " in text and f"corpusmill sample {run_folder} --rule symbols --near" in text
    near = shown(run_folder, rules=("short",), near=True, chars=40)
    assert "words = 34 (fails if < 20, passes by 14)" in near and "--set filter.thresholds.short=3 --dry-run" in near
    assert "a copy of" in shown(run_folder, stage="dedup", kept=False)
    assert "with --near, --kept shows documents that only just pass the rule" in " ".join(
        shown(run_folder, rules=("short",), kept=True).split()
    )
    assert "filter: no such documents." in shown(run_folder, rules=("never",))
