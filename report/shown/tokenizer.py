"""What the page shows of the tokenizer beside others, with the queries over `tokenizer/quality.json`."""

from corpusmill.report.facts.tokenizers import Judgement
from corpusmill.report.shown.shown import Shown, shown

#: A tokenizer's name as the page has it: of a path its last two parts.
NAME = "array_to_string(string_split({0}, '/')[-2:], '/')"


def totals(found: Judgement) -> Shown:
    """The vocabulary, and what of it the training text uses."""
    sql = """
        SELECT (content->>'vocabulary_size')::BIGINT AS vocabulary_size, (judged->>'documents')::BIGINT AS documents,
          (judged->>'utf8_bytes')::BIGINT / 1e6 AS mb, coalesce((used->>'unused_tokens')::BIGINT, 0) AS unused,
          coalesce((used->>'unused_bytes')::BIGINT, 0) AS unused_bytes, coalesce((used->'undertrained'->>'tokens')::BIGINT, 0) AS rare,
          coalesce((used->'undertrained'->>'below')::BIGINT, 0) AS below,
          coalesce((used->'never_produced'->>'tokens')::BIGINT, 0) AS never_produced
        FROM (SELECT content, content->'judged' AS judged, content->'usage' AS used FROM json_tokenizer_quality)
    """
    columns = ("vocabulary_size", "documents", "mb", "unused", "unused_bytes", "rare", "below", "never_produced")
    text = found.tokenizers[0].all
    unused = found.unused, found.unused_bytes, found.rare, found.below, found.never_produced
    return shown("vocabulary", "The vocabulary", sql, columns, [(found.vocabulary_size, text.documents, text.utf8_bytes / 1e6, *unused)])


def beside(found: Judgement) -> Shown:
    """All tokenizers on the same text."""
    sql = f"""
        SELECT {NAME.format("key")} AS tokenizer, (value->>'tokens')::BIGINT AS tokens,
          (value->>'bytes_per_token')::DOUBLE AS bytes_a_token, (value->>'tokens_per_word')::DOUBLE AS tokens_a_word,
          (value->>'words_split')::DOUBLE AS words_split
        FROM json_tokenizer_quality, json_each(content->'tokenizers')
        ORDER BY id
    """
    columns = ("tokenizer", "tokens", "bytes_a_token", "tokens_a_word", "words_split")
    every = [(t.name, t.all.tokens, t.all.bytes_per_token, t.all.tokens_per_word, t.all.words_split) for t in found.tokenizers]
    return shown("tokenizers", "Tokenizers on the same text", sql, columns, every)


def groups(found: Judgement, by: str, most: int) -> Shown:
    """Bytes a token of each tokenizer (in the order of the table above) by language or host."""
    numbers = range(1, len(found.tokenizers) + 1)
    each = "(figures->>'bytes_per_token')::DOUBLE"
    pivoted = ",\n  ".join(f"any_value({each}) FILTER (tokenizer = {number}) AS bytes_a_token_{number}" for number in numbers)
    sql = f"""\
SELECT name AS {by}, any_value((figures->>'documents')::BIGINT) FILTER (tokenizer = 1) AS documents,
  any_value((figures->>'utf8_bytes')::BIGINT) FILTER (tokenizer = 1) AS utf8_bytes,
  {pivoted}
FROM (
  SELECT g.key AS name, g.value AS figures, g.id AS place, dense_rank() OVER (ORDER BY t.id) AS tokenizer
  FROM json_tokenizer_quality, json_each(content->'tokenizers') t, json_each(t.value->'{by}s') g
)
GROUP BY name
ORDER BY min(place) FILTER (tokenizer = 1)
LIMIT {most}"""
    rows = []
    for name in found.groups(by)[:most]:
        own = found.tokenizers[0].groups(by)[name]
        rows.append((name, own.documents, own.utf8_bytes, *(t.groups(by)[name].bytes_per_token for t in found.tokenizers)))
    columns = (by, "documents", "utf8_bytes", *(f"bytes_a_token_{number}" for number in numbers))
    return shown(f"tokenizer-{by}s", f"Bytes a token by {by}", sql, columns, rows)


def worst(found: Judgement) -> Shown:
    sql = """
        SELECT value->>'text' AS token, (value->>'id')::BIGINT AS id, (value->>'uses')::BIGINT AS uses
        FROM json_tokenizer_quality, json_each(content->'usage'->'undertrained'->'worst') each
        ORDER BY each.id
    """
    rows = [(text, number, uses) for number, text, uses in found.worst]
    return shown("least-used", "The least used tokens", sql, ("token", "id", "uses"), rows)


def never(found: Judgement) -> Shown:
    sql = """
        SELECT value->>'text' AS token, (value->>'id')::BIGINT AS id
        FROM json_tokenizer_quality, json_each(content->'usage'->'never_produced'->'first') each
        ORDER BY each.id
    """
    rows = [(text, number) for number, text in found.never]
    return shown("never-produced", "Tokens that can't be produced", sql, ("token", "id"), rows)
