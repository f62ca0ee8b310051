"""Tests the planted copies by which a run measures its own deduplication. The curve of banded MinHash (Leskovec, Rajaraman, Ullman: Mining
of Massive Datasets, 3.4.2) is the oracle for what should be found."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from dedup_runs import words

from corpusmill.dedup import candidates
from corpusmill.dedup.audit import audit_summary
from corpusmill.dedup.config import PRESETS
from corpusmill.pipeline.shards import read_table

#: 600 texts with a copy of every tenth, in three shards.
TEXTS = [" ".join(words(60 + seed % 200, seed)) for seed in range(600)]
SHARDS = [TEXTS[:200], TEXTS[200:400] + TEXTS[::10], TEXTS[400:]]


def pairs_of(result: Any) -> pa.Table:
    return read_table(result.run.storage, "audit/pairs.parquet")


def shares(pairs: pa.Table) -> tuple[float, float, float]:
    """Returns the found share of the near copies that are due, the share that the curve expects, and its standard error."""
    rows = [row for row in pairs.to_pylist() if row["due"] and row["kind"] != "exact"]
    expected = np.array([row["expected"] for row in rows])
    error = np.sqrt((expected * (1 - expected)).sum()) / len(rows)
    return float(np.mean([row["joined"] for row in rows])), float(expected.mean()), float(error)


@pytest.mark.parametrize("several_groups", [False, True])
def test_what_a_run_writes_is_the_same_without_them(several_groups: bool, dedup, tree, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    if several_groups:
        monkeypatch.setattr(candidates, "GROUP_WORDS", 2_000)
    with_, without = (dedup(SHARDS, audit=audit, url={"enabled": True}) for audit in (300, 0))
    assert with_.run.manifest.tasks["audit"].counts["planted"] == 300 and "audit" not in without.run.manifest.tasks
    for folder in ("data", "report", "clusters"):
        found = [tree(Path(result.run.storage.root) / folder) for result in (with_, without)]
        one, other = ({name: content for name, content in each.items() if content} for each in found)
        assert one.keys() >= other.keys() and {name: one[name] for name in other} == other
    assert len(with_.kept) == 600 and audit_summary(without.run) == {}


def test_all_exact_copies_are_found_and_no_template_is_taken_for_a_copy(dedup) -> None:  # type: ignore[no-untyped-def]
    result = dedup(SHARDS, audit=600)
    rows = pairs_of(result).to_pylist()
    assert len(rows) == 600
    assert [row["kind"] for row in rows].count("exact") == 60 and all(row["joined"] for row in rows if row["kind"] == "exact")
    assert not any(row["joined"] for row in rows if not row["due"])
    similarities = [row["similarity"] for row in rows if row["kind"] == "edited"]
    assert min(similarities) < 0.55 and max(similarities) > 0.95 and 0.72 < np.mean(similarities) < 0.8
    line = audit_summary(result.run)["planted copies"]
    assert line.endswith(f"0 of {sum(not row['due'] for row in rows):,} less similar pairs taken for copies")


@pytest.mark.parametrize("bands, rows", [(14, 8), (3, 8), (20, 5)])
def test_near_copies_are_found_as_often_as_the_bands_promise(bands: int, rows: int, dedup) -> None:  # type: ignore[no-untyped-def]
    found, expected, error = shares(pairs_of(dedup(SHARDS, audit=600, threshold=0.6, minhash={"bands": bands, "rows": rows})))
    assert abs(found - expected) < 4 * error + 0.01


def test_a_run_that_loses_keys_shows_it(dedup, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    whole = candidates.buckets
    monkeypatch.setattr(candidates, "buckets", lambda keys, texts, documents: whole(keys[::3], texts[::3], documents[::3]))
    found, expected, error = shares(pairs_of(dedup(SHARDS, audit=600)))
    assert found < expected - 6 * error


@pytest.mark.parametrize("config", [*({"preset": name} for name in PRESETS), {"verification": "estimate"}, {"similarity": "containment"}])
def test_every_preset_is_measured(config: dict[str, Any], dedup) -> None:  # type: ignore[no-untyped-def]
    pairs = pairs_of(dedup(SHARDS, audit=300, **config))
    exact = [row["joined"] for row in pairs.to_pylist() if row["kind"] == "exact"]
    assert len(exact) == 30 and all(exact)
    estimate = config.get("verification") == "estimate"  # it is off by .04, so it errs beside the threshold
    found, expected, error = shares(pairs)
    assert abs(found - expected) < 4 * error + (0.15 if estimate else 0.01)
    wrong = [row for row in pairs.to_pylist() if row["joined"] and not row["due"]]
    assert all(row["similarity"] > 0.6 for row in wrong) and (estimate or not wrong)


def test_texts_without_spaces_give_pairs_too(dedup) -> None:  # type: ignore[no-untyped-def]
    draw = random.Random(1)
    texts = ["".join(chr(0x4E00 + draw.randrange(3000)) for _ in range(200)) for _ in range(150)]
    rows = pairs_of(dedup([texts], audit=150)).to_pylist()
    assert all(row["similarity"] is not None for row in rows) and sum(row["due"] and row["joined"] for row in rows) > 50


def test_a_small_run_plants_nothing_and_an_index_gets_nothing_planted(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "audit" not in dedup([TEXTS[:99]]).run.manifest.tasks
    index = {"path": str(tmp_path / "index"), "earlier": "fixed"}
    dedup([TEXTS[:300]], index={**index, "name": "one"})
    second = dedup([TEXTS[200:]], index={**index, "name": "two"})
    assert len(second.kept) == 300 and second.run.manifest.tasks["audit"].counts["planted"] == 400
    names = [path.name for path in Path(index["path"]).rglob("*.parquet")]
    assert names and not any("planted" in name for name in names)
