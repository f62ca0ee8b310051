"""The near misses of a stage with the beginnings of their texts, each read from the place where the stage had read it."""

import copy
from dataclasses import dataclass
from typing import Any

from corpusmill.report.facts.decisions import Decisions, RuleCount
from corpusmill.report.facts.near import Sample
from corpusmill.report.facts.scan import in_threads
from corpusmill.report.read import Rule, RunReader
from corpusmill.report.shown.shown import slug

#: Where texts lie as they came into a stage: the nearest stage before it that is there.
BEFORE = {"filter": ("ingest",), "dedup": ("filter", "ingest")}


@dataclass(frozen=True)
class Shown:
    """A document near a threshold; `text` is None where the run does not hold it."""

    sample: Sample
    side: str  # dropped or kept
    text: str | None


@dataclass(frozen=True)
class NearMisses:
    """The documents on both sides of a rule. `id` is that of its part of the page."""

    id: str
    rule: RuleCount
    comparison: Rule | None
    shown: list[Shown]


def near_misses(reader: RunReader, decisions: Decisions, most: int, characters: int) -> list[NearMisses]:
    """For each rule that fired, at most `most`: the documents just dropped and just kept, with so many characters of their text."""
    sides = {"dropped": decisions.just_dropped, "kept": decisions.just_kept}
    rules = decisions.by_removal()[:most]
    samples = dict.fromkeys((side, sample) for side, group in sides.items() for rule in rules for sample in group.get(rule.name, []))
    texts = read_texts(reader, decisions.stage, [(side == "kept", sample) for side, sample in samples], characters)
    found = []
    for place, rule in enumerate(rules):
        shown = [Shown(s, side, texts.get((s.shard, s.row))) for side, group in sides.items() for s in group.get(rule.name, [])]
        found.append(NearMisses(f"near-{decisions.stage}-{place}-{slug(rule.name)[:40]}", rule, decisions.rule(rule.name), shown))
    return found


def read_texts(reader: RunReader, stage: str, samples: list[tuple[bool, Sample]], characters: int) -> dict[tuple[str, int], str]:
    """The beginnings of texts as they came into a stage, by shard and row of its report. `samples` are told with whether they were kept.

    A row of a report is the same row of the documents that its task has read. Where those are gone, what was kept may still lie in the
    stage's own documents.
    """
    places: dict[str, list[Sample]] = {}
    inputs = _inputs(reader, stage)
    for _, sample in sorted(samples, key=lambda pair: (pair[1].shard, pair[1].row, pair[1].id)):
        if sample.shard in inputs:
            places.setdefault(sample.shard, []).append(sample)

    def work(shard: str) -> tuple[dict[int, dict[str, Any]], list[str]]:
        own = copy.copy(reader)
        own.warnings = []
        return own.at(inputs[shard], [sample.row for sample in places[shard]], ["id", "text"]), own.warnings

    found: dict[tuple[str, int], str] = {}
    shards = sorted(places)
    for shard, (rows, warnings) in zip(shards, in_threads(work, shards), strict=True):
        for sentence in warnings:
            reader.warn(sentence)
        for sample in places[shard]:
            row = rows.get(sample.row)
            if row is not None and row.get("id") == sample.id:
                found[shard, sample.row] = (row.get("text") or "")[:characters]
    return found | _elsewhere(reader, stage, [pair for pair in samples if (pair[1].shard, pair[1].row) not in found], characters)


def _inputs(reader: RunReader, stage: str) -> dict[str, str]:
    """The documents that each shard of a stage's report tells of, relative to the run."""
    found = {}
    for task in reader.stages[stage].tasks:
        read = [ref.path for ref in task.inputs if ref.path.endswith(".parquet") and ref.path.split("/")[1:2] == ["data"]]
        for output in task.outputs:
            if len(read) == 1 and "report/" in output.path:
                found[output.path] = read[0]
    return found


def _elsewhere(reader: RunReader, stage: str, samples: list[tuple[bool, Sample]], characters: int) -> dict[tuple[str, int], str]:
    """Texts that are looked for by id: in the stages before, and for what was kept in the stage itself."""
    missing = {sample.id: (sample.shard, sample.row) for _, sample in samples}
    kept = {sample.id for is_kept, sample in samples if is_kept}
    found: dict[tuple[str, int], str] = {}
    for where in (*BEFORE.get(stage, ()), stage):
        ids = (kept if where == stage else set(missing)) - {id_ for id_, place in missing.items() if place in found}
        if ids and reader.stages[where].status != "missing":
            found |= {missing[id_]: text for id_, text in reader.texts(where, ids, characters).items()}
    return found
