"""What tokenizers make of the same texts, summed up by language and host."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.tokenize.fertility import SPLIT, TOUCHED, WORDS, cut_words, word_kinds
from corpusmill.tokenize.judged import Judged

KEYS = ["tokenizer", "language", "host"]
SUMS = ["documents", "utf8_bytes", "tokens", "words", "word_tokens", "words_split"]
#: Language and host are null where documents have none; the last three are 0 for a tokenizer whose tokens are no stretches of bytes.
MEASURED = pa.schema([*(pa.field(name, pa.string()) for name in KEYS), *(pa.field(name, pa.int64()) for name in SUMS)])
COLUMNS = ("url", "language")


def measure(documents: pa.Table, tokenizers: Sequence[Judged]) -> pa.Table:
    """The sums (schema MEASURED) of documents (columns text, url, and language where they have it)."""
    texts = documents["text"]
    data, offsets = text_buffers(texts)
    rows = documents.num_rows
    language = documents["language"].cast(pa.string()) if "language" in documents.column_names else pa.nulls(rows, pa.string())
    host = hosts(documents["url"].cast(pa.string()))
    sizes = np.diff(offsets)
    tables = []
    for tokenizer in tokenizers:
        ids, counts = tokenizer.encoder.encode_column(texts)
        found = np.zeros((rows, 3), np.int64)
        if tokenizer.sizes is not None:
            cut_words(data, offsets, ids, counts, tokenizer.sizes, word_kinds(), found)
        columns = [np.ones(rows, np.int64), sizes, counts, found[:, WORDS], found[:, TOUCHED], found[:, SPLIT]]
        names = pa.array([tokenizer.name] * rows, pa.string())
        table = pa.table([names, language, host, *(pa.array(np.ascontiguousarray(column)) for column in columns)], schema=MEASURED)
        tables.append(add_up([table]))
    return pa.concat_tables(tables) if tables else MEASURED.empty_table()


def add_up(tables: Iterable[pa.Table], keys: Sequence[str] = KEYS) -> pa.Table:
    """The sum of tables of sums, one row for each of `keys` that occurs; sorted by them."""
    joined = pa.concat_tables([MEASURED.empty_table(), *tables])
    summed = joined.group_by(list(keys), use_threads=False).aggregate([(name, "sum") for name in SUMS])
    summed = summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names]).select([*keys, *SUMS])
    return summed.sort_by([(key, "ascending") for key in keys])


def values(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of one row of sums."""

    def ratio(part: str, whole: str) -> float | None:
        return round(row[part] / row[whole], 4) if row[whole] else None

    return {
        **{name: row[name] for name in ("documents", "utf8_bytes", "tokens")},
        "bytes_per_token": ratio("utf8_bytes", "tokens"),
        "words": row["words"],
        "tokens_per_word": ratio("word_tokens", "words"),
        "words_split": ratio("words_split", "words"),
    }


#: Hosts of a report, those with most text first; the sums of all others are one entry more.
MOST_HOSTS = 25
OTHERS = "(others)"
UNKNOWN = "(unknown)"


def by_tokenizer(measured: pa.Table, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each tokenizer its figures over everything, by language and by host, in the order of their text."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        table = measured.filter(pc.equal(measured["tokenizer"], name))
        total = add_up([table], ["tokenizer"]).to_pylist()
        found[name] = {
            **values(total[0] if total else dict.fromkeys(SUMS, 0)),
            "languages": _groups(table, "language", None),
            "hosts": _groups(table, "host", MOST_HOSTS),
        }
    return found


def _groups(table: pa.Table, key: str, most: int | None) -> dict[str, Any]:
    """Figures by `key`; empty where no document has one."""
    rows = add_up([table], [key]).to_pylist()
    if all(row[key] is None for row in rows):
        return {}
    rows.sort(key=lambda row: (row[key] is None, -row["utf8_bytes"], row[key] or ""))
    shown = rows[:most]
    found = {UNKNOWN if row[key] is None else row[key]: values(row) for row in shown}
    if rows[len(shown) :]:
        found[OTHERS] = values({name: sum(row[name] for row in rows[len(shown) :]) for name in SUMS})
    return found
