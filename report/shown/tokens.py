"""What the page shows of token shards, their mixture and how rows are packed, with the queries."""

from collections.abc import Mapping, Sequence
from typing import Any

from corpusmill.report.facts.funnel import Component, Packing
from corpusmill.report.shown.shown import Shown, shown


def splits(sets: Mapping[str, Mapping[str, Any]]) -> Shown:
    """By split, from the `shards.json` of each; the query counts the rows of the index."""
    columns = ("split", "documents", "tokens", "utf8_bytes", "bytes_a_token", "shards", "vocabulary_size")
    rows = []
    for split, told in sets.items():
        documents, tokens, size, vocabulary = (told.get(name, 0) for name in ("documents", "tokens", "utf8_bytes", "vocabulary_size"))
        rows.append((split, documents, tokens, size, size / tokens if tokens else None, len(told.get("shards", [])), vocabulary))
    return shown("tokens", "Token shards", "\nUNION ALL\n".join(map(_split, sets)) + "\nORDER BY split", columns, rows)


def _split(split: str) -> str:
    return f"""\
SELECT '{split}' AS split, count(*) AS documents, coalesce(sum(tokens), 0) AS tokens, coalesce(sum(utf8_bytes), 0) AS utf8_bytes,
  sum(utf8_bytes) / nullif(sum(tokens), 0) AS bytes_a_token,
  (SELECT json_array_length(content->'shards') FROM json_tokens_{split}_shards) AS shards,
  (SELECT (content->>'vocabulary_size')::BIGINT FROM json_tokens_{split}_shards) AS vocabulary_size
FROM tokens_{split}"""


def mixture(components: Sequence[Component]) -> Shown:
    sql = """
        SELECT value->>'name' AS component, (value->>'there')::BIGINT AS there, (value->>'wanted')::BIGINT AS wanted,
          (value->>'tokens')::BIGINT AS taken, (value->>'epochs')::DOUBLE AS epochs, (value->>'short')::BIGINT AS short
        FROM json_tokens_plan, json_each(content->'mixture')
        ORDER BY id
    """
    rows = [(c.name, c.there, c.wanted, c.tokens, c.epochs, c.short) for c in components]
    return shown("mixture", "The mixture", sql, ("component", "there", "wanted", "taken", "epochs", "short"), rows)


def packing(plans: Sequence[Packing]) -> Shown:
    """Of each split's packing plans."""
    plan = "SELECT '{0}' AS split, id, value FROM json_tokens_{0}_shards, json_each(content->'packing')"
    some = "\n  UNION ALL ".join(plan.format(split) for split in dict.fromkeys(p.split for p in plans))
    sql = f"""\
SELECT split, (value->>'length')::BIGINT AS places, (value->>'rows')::BIGINT AS rows, (value->>'padding')::BIGINT AS empty,
  100 * (value->>'waste')::DOUBLE AS percent_empty
FROM (
  {some}
)
ORDER BY split, id"""
    rows = [(p.split, p.length, p.rows, p.padding, 100 * p.waste) for p in plans]
    return shown("packing", "Packed rows", sql, ("split", "places", "rows", "empty", "percent_empty"), rows)
