"""The stage `tokenizer` where characters are the tokens: which there are in each shard of documents, and all of them together."""

import json
from collections import Counter
from collections.abc import Sequence

from corpusmill.pipeline.config import Config as BaseConfig
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.tokenize.characters import count_characters, make_tokenizer
from corpusmill.tokenize.checked import checked
from corpusmill.tokenize.tokenizer_config import TokenizerConfig
from corpusmill.tokenize.tokenizer_files import TOKENIZER_FILE, json_file, tokenizer_config

CHARACTERS_FILE = "characters.json"


class CharactersWorker(Worker):
    """How often each character occurs in one shard of documents."""

    def process(self, piece: Piece) -> Output:
        path = piece.inputs[0].path
        counts: Counter[str] = Counter()
        rows = 0
        for table in iter_tables(self.run, path, ["id", "text"]):
            counts.update(count_characters(checked(table, self.run.path(path), rows)["text"]))
            rows += table.num_rows
        size = sum(len(character.encode()) * count for character, count in counts.items())
        return Output({f"counts/{piece.key}.json": json_file(dict(sorted(counts.items())))}, rows_in=rows, kept=rows, bytes_in=size)


def take_characters(run: StageRun, config: TokenizerConfig) -> None:
    """Publishes `tokenizer.json`, `tokenizer_config.json` and `characters.json` (how often each occurs, by code point)."""
    pieces = [Piece(f"characters-{number:05d}", (shard,)) for number, shard in enumerate(run.documents())]
    rows = run.map("characters", CharactersWorker, pieces, config=BaseConfig())
    inputs = [row.ref(run.stage.name, row.outputs[0].path) for row in rows]
    run.once("train", inputs, lambda identity: _files(run, rows, config))


def _files(run: StageRun, rows: Sequence[TaskRow], config: TokenizerConfig) -> Output:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(json.loads(run.storage.read_bytes(row.outputs[0].path)))
    if not counts:
        raise InputError(f"tokenizer: the documents in {run.run.root} hold no text.")
    special = config.all_special_tokens
    if twice := sorted(counts.keys() & set(special)):
        raise InputError(f"tokenizer: the special token {twice[0]!r} is a character of the documents: put marks around it.")
    files = {
        TOKENIZER_FILE: (make_tokenizer(counts, special).to_str(pretty=True) + "\n").encode(),
        "tokenizer_config.json": json_file(tokenizer_config({token: number for number, token in enumerate(special)})),
        CHARACTERS_FILE: json_file(dict(sorted(counts.items()))),
    }
    return Output({**files})


def character_summary(run: StageRun) -> dict[str, str]:
    counts: dict[str, int] = json.loads(run.storage.read_bytes(CHARACTERS_FILE))
    special = len(json.loads(run.storage.read_bytes(TOKENIZER_FILE))["added_tokens"])
    return {
        "vocabulary": f"{len(counts) + special:,} tokens: {len(counts):,} characters, and {special} special ones",
        "characters": f"{sum(counts.values()):,} in the documents",
    }
