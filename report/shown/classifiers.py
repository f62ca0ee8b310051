"""What the page shows of the run's classifiers, with the queries over their descriptions (`filter/classifiers/NAME.json`).

A measure is three numbers (its value and the ends of its interval), so a query has a row for each measure of a part of the examples.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corpusmill.report.facts.classifiers import Classifier, Label
from corpusmill.report.query.files import view_name
from corpusmill.report.query.sql import aliases, column, field, literal
from corpusmill.report.shown.shown import Shown, ratio, shown, slug

#: The measures of a part of the examples, and those of a threshold, where `evaluate` keeps them.
MEASURES = ("roc_auc", "average_precision", "at_threshold.precision", "at_threshold.recall", "at_threshold.f1", "calibration_error")
AT_THRESHOLD = ("precision", "recall", "f1", "kept")
WHOLE = ("calibration_error_equal_width", "brier")
ENDS = ("value", "low", "high")

Row = tuple[Any, ...]


def sources(found: Classifier, most: int) -> Shown:
    """What it was trained on, with the answers for each label."""
    names = [name for label in aliases(label.name for label in found.labels) for name in (f"{label}_yes", f"{label}_no")]
    answers = [(label.name, answer) for label in found.labels for answer in ("yes", "no")]
    counts = ",\n  ".join(
        f"coalesce((value->'answers'->{field(label)}->>'{answer}')::BIGINT, 0) AS {name}"
        for (label, answer), name in zip(answers, names, strict=True)
    )
    sql = f"""\
SELECT value->>'name' AS source, value->>'licence' AS licence, (value->>'examples')::BIGINT AS examples,
  {counts}
FROM {view_name(found.path)}, json_each(content->'card'->'data'->'sources')
ORDER BY id
LIMIT {most}"""
    rows = [
        (s.name, s.licence, s.examples, *(count for label in found.labels for count in s.answers.get(label.name, (0, 0))))
        for s in found.sources[:most]
    ]  # fmt: skip
    return shown(
        f"{slug(found.name)}-sources", f"{found.name}: what it was trained on", sql, ("source", "licence", "examples", *names), rows
    )


def texts(found: Classifier) -> Shown:
    """How many texts, and how long nine of ten and the middle one are in UTF-8 bytes."""
    sql = f"""
        SELECT coalesce((data->>'different')::BIGINT, 0) AS different, (data->'bytes_of_a_line'->>'0.05')::BIGINT AS from_bytes,
          (data->'bytes_of_a_line'->>'0.5')::BIGINT AS middle_bytes, (data->'bytes_of_a_line'->>'0.95')::BIGINT AS to_bytes
        FROM (SELECT content->'card'->'data' AS data FROM {view_name(found.path)})
    """
    columns = ("different", "from_bytes", "middle_bytes", "to_bytes")
    row = (found.different, *(found.lengths or (None, None, None)))
    return shown(f"{slug(found.name)}-texts", f"{found.name}: its texts", sql, columns, [row])


def facts(found: Classifier, label: Label) -> Shown:
    """Its threshold and, where it was measured, the examples of which it was made."""
    on = ("trained_on", "calibrated_on", "threshold_on") if label.test is not None else ()
    counts = {f"{name}_{answer}": f"(facts->'{name}'->>'{answer}')::BIGINT" for name in on for answer in ("yes", "no")}
    if on:
        counts = {"lines": " + ".join(counts[f"trained_on_{answer}"] for answer in ("yes", "no")), **counts}
    named = "".join(f",\n  {value} AS {name}" for name, value in counts.items())
    sql = f"""\
SELECT (head.value->>'threshold')::DOUBLE AS threshold{named}
FROM (SELECT *, content->'card'->'labels'->{field(label.name)} AS facts FROM {view_name(found.path)}), json_each(content->'heads') head
WHERE (head.value->>'label') = {literal(label.name)}"""
    row = (label.threshold, *((label.yes + label.no, label.yes, label.no, *label.fitted) if on else ()))
    return shown(_name(found, label, "made-of"), f"{label.name}: threshold and examples", sql, ("threshold", *counts), [row])


def answers(label: Label) -> Shown:
    """What it says of the run's documents."""
    assert label.answers is not None
    (name,) = label.columns
    scored, yes = f"NOT isnan({column(name)})", f"{column(name)} >= {literal(label.threshold)}"
    sql = f"""
        SELECT count(*) FILTER ({scored}) AS scored, count(*) FILTER ({scored} AND {yes}) AS yes, yes / nullif(scored, 0) AS share,
          count(*) FILTER (kept AND {scored}) AS kept_scored, count(*) FILTER (kept AND {scored} AND {yes}) AS kept_yes,
          kept_yes / nullif(kept_scored, 0) AS kept_share
        FROM filter_report
    """
    said = label.answers
    row = (said.scored, said.yes, ratio(said.yes, said.scored), said.kept_scored, said.kept_yes, ratio(said.kept_yes, said.kept_scored))
    columns = ("scored", "yes", "share", "kept_scored", "kept_yes", "kept_share")
    return shown(f"{slug(name)}-answers", f"{name}: answers in this run", sql, columns, [row])


def slices(found: Classifier, label: Label, part: str, most: int) -> Shown:
    """Measures on all examples of `part` (test or unseen), by source and by length, as far as the page has them."""
    measured = label.test if part == "test" else label.unseen
    assert measured is not None
    kinds = [(kind, limit) for kind, limit in (("by_source", most), ("by_length", len(measured["by_length"]))) if len(measured[kind]) > 1]
    parts = ["SELECT 0 AS kind, 0 AS place, 'all' AS part, found AS measures FROM measured"]
    parts += [
        f"(SELECT {number}, id, key, value FROM measured, json_each(found->'{kind}') ORDER BY id LIMIT {limit})"
        for number, (kind, limit) in enumerate(kinds, 1)
    ]  # fmt: skip
    union = "\n  UNION ALL\n  ".join(parts)
    sql = f"""\
WITH measured AS ({_measured(found, label, part)})
SELECT part, (measures->>'examples')::BIGINT AS examples, (measures->>'yes')::BIGINT / nullif(examples, 0) AS yes, measure,
  {_ends("measures", "measure")}
FROM (
  {union}
), (SELECT unnest([{_names(MEASURES)}]) AS measure, unnest(range({len(MEASURES)})) AS number)
ORDER BY kind, place, number"""
    every = [("all", measured), *(pair for kind, limit in kinds for pair in list(measured[kind].items())[:limit])]
    rows = [row for name, of in every for row in _slice(name, of)]
    title = f"{label.name}: measures, {part}"
    return shown(_name(found, label, part), title, sql, ("part", "examples", "yes", "measure", *ENDS), rows)


def _slice(name: str, of: Mapping[str, Any]) -> Iterator[Row]:
    examples = of["examples"]
    for measure in MEASURES:
        group, _, last = measure.rpartition(".")
        yield name, examples, of["yes"] / examples if examples else None, measure, *_three((of[group] if group else of)[last])


def about(found: Classifier, label: Label) -> Shown:
    """How the intervals were made, and what is measured only on all examples."""
    assert label.test is not None
    sql = f"""\
SELECT 100 * (found->>'confidence')::DOUBLE AS percent, (found->>'resamples')::BIGINT AS resamples, (found->>'unknown')::BIGINT AS unknown,
  measure, {_ends("found", "measure")}
FROM ({_measured(found, label, "test")}), (SELECT unnest([{_names(WHOLE)}]) AS measure)
ORDER BY measure DESC"""
    test = label.test
    once = 100 * test["confidence"], test["resamples"], test["unknown"]
    rows = [(*once, name, *_three(test[name])) for name in sorted(WHOLE, reverse=True)]
    columns = ("percent", "resamples", "unknown", "measure", *ENDS)
    return shown(_name(found, label, "intervals"), f"{label.name}: intervals", sql, columns, rows)


def thresholds(found: Classifier, label: Label) -> Shown:
    """Measures at each threshold of the test part; the chart has all but those of its own."""
    assert label.test is not None
    measured = _measured(found, label, "test")
    sql = f"""\
SELECT (found->>'threshold')::DOUBLE AS threshold, measure, {_ends("found", "measure")}
FROM (
  SELECT -1 AS place, found->'at_threshold' AS found FROM ({measured})
  UNION ALL
  SELECT id, value FROM ({measured}), json_each(found->'thresholds')
), (SELECT unnest([{_names(AT_THRESHOLD)}]) AS measure, unnest(range({len(AT_THRESHOLD)})) AS number)
ORDER BY threshold, place, number"""
    every = sorted([label.test["at_threshold"], *label.test["thresholds"]], key=lambda row: row["threshold"])
    rows = [(row["threshold"], name, *_three(row[name])) for row in every for name in AT_THRESHOLD]
    return shown(_name(found, label, "thresholds"), f"{label.name}: thresholds", sql, ("threshold", "measure", *ENDS), rows)


def reliability(found: Classifier, label: Label) -> Shown:
    """The bins of equal mass of the test part."""
    assert label.test is not None
    columns = ("score", "yes", "low", "high", "examples")
    values = ", ".join(f"(value->>'{name}')::{'BIGINT' if name == 'examples' else 'DOUBLE'} AS {name}" for name in columns)
    sql = f"""\
SELECT {values}
FROM ({_measured(found, label, "test")}), json_each(found->'reliability')
ORDER BY id"""
    rows = [[row[name] for name in columns] for row in label.test["reliability"]]
    return shown(_name(found, label, "reliability"), f"{label.name}: reliability", sql, columns, rows)


def _name(found: Classifier, label: Label, what: str) -> str:
    return "-".join(part for part in (slug(found.name), slug(label.name) if len(found.labels) > 1 else "", what) if part)


def _measured(found: Classifier, label: Label, part: str) -> str:
    return f"SELECT content->'card'->'labels'->{field(label.name)}->'{part}' AS found FROM {view_name(found.path)}"


def _ends(of: str, measure: str) -> str:
    return ", ".join(f"(json_extract({of}, '$.' || {measure})->>'{end}')::DOUBLE AS {end}" for end in ENDS)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _three(measure: Mapping[str, float] | None) -> tuple[float | None, ...]:
    return tuple(None if measure is None else measure[end] for end in ENDS)
