"""What the page shows of alignment's pairs and of answers before and after it, with the queries over the stage's files and report."""

from corpusmill.report.facts.alignment import MOST, Alignment, Answer, Compared, Source
from corpusmill.report.query.sql import field, literal
from corpusmill.report.shown.shown import Shown, shown

SHARES = ("value", "low", "high")


def sources(found: Alignment, most: int) -> Shown:
    """How pairs from scores came about."""
    columns = ("score", "ranked", "best_part", "worst_part", "pairs", "wanted", "chosen_chars", "rejected_chars")
    sql = f"""
        SELECT value->>'column' AS score, (value->>'scored')::BIGINT AS ranked, (value->>'good')::DOUBLE AS best_part,
          (value->>'bad')::DOUBLE AS worst_part, (value->>'pairs')::BIGINT AS pairs, (value->>'wanted')::BIGINT AS wanted,
          (value->>'chosen_chars')::DOUBLE AS chosen_chars, (value->>'rejected_chars')::DOUBLE AS rejected_chars
        FROM json_align_pair_sources, json_each(content)
        ORDER BY id
        LIMIT {most}
    """
    return shown("pair-sources", "Pairs from scores", sql, columns, map(_source, found.sources[:most]))


def _source(s: Source) -> tuple[str | float | None, ...]:
    return s.column, s.scored, s.good, s.bad, s.pairs, s.wanted, s.chosen_chars, s.rejected_chars


def dropped(found: Alignment) -> Shown:
    """Pairs by the rule that they failed."""
    sql = "SELECT unnest(failed) AS rule, count(*) AS pairs FROM align_report GROUP BY rule ORDER BY rule"
    return shown("pairs-dropped", "Pairs that were dropped", sql, ("rule", "pairs"), found.dropped.items())


def notes(found: Alignment) -> Shown:
    """The first dropped pairs, and why."""
    sql = f"""
        SELECT id, coalesce(nullif(note, ''), array_to_string(failed, ', ')) AS note
        FROM align_report
        WHERE len(failed) > 0
        LIMIT {MOST}
    """
    return shown("pairs-dropped-notes", "Why pairs were dropped", sql, ("id", "note"), found.notes)


def compared(found: Alignment, most: int) -> Shown:
    """Scores of answers before and after."""
    columns = ["score", "prompts", "before", "after", "difference", "low", "high", "equal_length", "threshold"]
    columns += [f"worse_{when}{'' if name == 'value' else f'_{name}'}" for when in ("before", "after") for name in SHARES]
    worse = ",\n  ".join(
        f"(value->'worse_{when}'->>'{name}')::DOUBLE AS worse_{when}{'' if name == 'value' else f'_{name}'}"
        for when in ("before", "after")
        for name in SHARES
    )
    sql = f"""\
SELECT key AS score, (value->>'texts')::BIGINT AS prompts, (value->>'before')::DOUBLE AS "before", (value->>'after')::DOUBLE AS "after",
  (value->>'after')::DOUBLE - (value->>'before')::DOUBLE AS difference, (value->>'low')::DOUBLE AS low, (value->>'high')::DOUBLE AS high,
  (value->'equal_length'->>'difference')::DOUBLE AS equal_length, (value->>'threshold')::DOUBLE AS threshold,
  {worse}
FROM json_align_judged, json_each(content->'scores')
ORDER BY key
LIMIT {most}"""
    return shown("answers-scored", "Answers before and after", sql, columns, map(_compared, found.compared[:most]))


def _compared(c: Compared) -> tuple[str | float | None, ...]:
    difference = None if c.before is None or c.after is None else c.after - c.before
    shares = [value for share in (c.worse_before, c.worse_after) for value in (share or (None, None, None))]
    return c.column, c.texts, c.before, c.after, difference, c.low, c.high, c.equal_length, c.threshold, *shares


def lengths(found: Alignment) -> Shown:
    """Tokens of an answer on average."""
    sql = """
        SELECT (content->>'tokens_before')::DOUBLE AS tokens_before, (content->>'tokens_after')::DOUBLE AS tokens_after
        FROM json_align_judged
    """
    return shown("answer-tokens", "Length of the answers", sql, ("tokens_before", "tokens_after"), [found.tokens] if found.tokens else [])


def answers(found: Alignment, most: int) -> Shown:
    """The scores of each answer that is shown, the worst after alignment first."""
    judge = found.compared[-1]
    score = f"(value->'after'->>{field(judge.column)})::DOUBLE"
    sql = f"""\
SELECT answer.value->>'document' AS document, side, score.key AS score, TRY_CAST(score.value->>'$' AS DOUBLE) AS "value"
FROM (
  SELECT *, row_number() OVER (ORDER BY {score}{"" if judge.high_is_good else " DESC"} NULLS LAST, id) AS place
  FROM json_align_judged, json_each(content->'answers')
) answer, (SELECT unnest(['before', 'after']) AS side), json_each(answer.value->side) score
WHERE score.key <> 'text' AND place <= {most}
ORDER BY place, side DESC, score.id"""
    rows = [row for answer in found.answers[:most] for row in _answer(answer)]
    return shown("answers", f"Scores of the answers, by {literal(judge.column)[1:-1]}", sql, ("document", "side", "score", "value"), rows)


def _answer(of: Answer) -> list[tuple[str, str, str, float | None]]:
    sides = (("before", of.before[1]), ("after", of.after[1]))
    return [(of.document, side, score, value) for side, scores in sides for score, value in scores.items()]
