"""Counts over rows that pass a filter."""

from typing import Any

import numpy as np

from corpusmill.report.explore.coding import Bools, Codes, Counts, Names
from corpusmill.report.explore.table import ORIGINS, StageTable

#: Languages, sources and hosts that an answer names.
NAMED = 200


def totals(table: StageTable, mask: Bools) -> dict[str, int]:
    """Documents, those of them that were kept, and the characters that came in."""
    return {"total": int(mask.sum()), "kept": int((mask & table.kept).sum()), "characters": int(table.characters[mask].sum())}


def summary(table: StageTable, mask: Bools) -> dict[str, Any]:
    """What a page shows beside the documents of a filter."""
    fired, alone = table.verdicts.fired(_counts(table.verdict[mask], len(table.verdicts.all)).tolist())
    rules = [{"rule": rule, "fired": f, "alone": a} for rule, f, a in zip(table.verdicts.rules, fired, alone, strict=True)]
    return {**totals(table, mask), "rules": rules, **{f"{origin}s": most(table, origin, mask) for origin in ORIGINS}}


def most(table: StageTable, origin: str, mask: Bools | None = None) -> list[dict[str, Any]]:
    """The most frequent languages, sources or hosts, ties by name; None is where a document has none."""
    codes, names = table.origins[origin], table.names[origin]
    return _most(codes if mask is None else codes[mask], names)


def _most(codes: Codes, names: Names) -> list[dict[str, Any]]:
    counts = _counts(codes, len(names.values))
    there = np.flatnonzero(counts)
    if len(there) > NAMED:
        least = np.partition(counts[there], -NAMED)[-NAMED]
        there = there[counts[there] >= least]
    found = sorted((-int(counts[code]), names.values[code] or "", code) for code in there.tolist())[:NAMED]
    return [{"value": names.values[code], "rows": -rows} for rows, _, code in found]


def _counts(codes: Codes, size: int) -> Counts:
    return np.bincount(codes, minlength=size).astype(np.int64)
