"""The stage that trains the tokenizer: a sample of the documents, counted words, byte-level BPE.

Phases: measure the groups of documents, to decide which documents make up the sample; count the sample's words in each shard; add up the
counts (a task for each range of words); train, or take over a given tokenizer; compare the result with other tokenizers (`judge.py`).
A vocabulary of characters has two phases instead: count the characters of each shard of documents, then make the vocabulary from all
counts.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.shards import iter_tables, read_table
from corpusmill.pipeline.special_tokens import END_OF_TEXT, PAD
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.token_bytes import tiktoken_file
from corpusmill.tokenize.characters import count_characters, make_character_tokenizer
from corpusmill.tokenize.documents import checked
from corpusmill.tokenize.judge import QUALITY_FILE, TAKEN_OVER, judge, selection, summary
from corpusmill.tokenize.sampling import CountsWorker, SampleGroup, SizesWorker, SumWorker, add_sizes, plan_sample, read_words
from corpusmill.tokenize.tokenizer_config import BYTES, CountConfig, JudgeConfig, TokenizerConfig, groups_config

#: Sampled text for each task that adds up word counts, and the largest number of such tasks.
RANGE_BYTES = 64_000_000
MOST_RANGES = 256
#: Groups of the sample that the terminal names.
SHOWN = 5


class TokenizerStage(Stage):
    """Publishes `tokenizer.json`, `tokenizer_config.json`, `ranks.tiktoken`, `sample.json` and `quality.json`; with `kind: characters`
    the first two and `characters.json`."""

    name: ClassVar[str] = "tokenizer"
    Config = TokenizerConfig
    config: TokenizerConfig

    def execute(self, run: StageRun) -> None:
        if self.config.kind == "characters":
            return take_characters(run, self.config)
        given = read_given(self.config.file)
        documents = run.documents()
        grouped = groups_config(self.config.sample)
        sized = run.map("sizes", SizesWorker, _shard_tasks("sizes", documents), config=grouped)
        sizes = add_sizes([read_table(run.storage, run.output(row)) for row in sized])
        groups = plan_sample(sizes, self.config.sample)
        sampled = sum(group.sampled_bytes for group in groups)
        if not sampled:
            raise InputError(f"tokenizer: the documents in {run.run.root} hold no text to train on.")
        ranges = min(math.ceil(sampled / RANGE_BYTES), MOST_RANGES)
        params = {"cutoffs": [[group.name, group.cutoff] for group in groups], "ranges": ranges}
        counting = CountConfig(**grouped.model_dump(), regex=given.regex if given else self.config.regex)
        counts = run.map("counts", CountsWorker, _shard_tasks("counts", documents), params, counting)
        files = [row.ref(self.name, row.outputs[0].path) for row in counts]
        tasks = [Task(f"words-{number:05d}", tuple(files), {"range": number}) for number in range(ranges)]
        words = run.map("words", SumWorker, tasks, config=Config())
        inputs = [row.ref(self.name, row.outputs[0].path) for row in words]
        more = {"groups": [dataclasses.asdict(group) for group in groups], "given": given.sha256 if given else None}
        training = self.config.model_copy(update={"judge": JudgeConfig()})
        trained = run.once("train", inputs, lambda identity: self.train(run, words, counts, groups, given), more, training)
        sample = {"groups": grouped.model_dump(mode="json"), "cutoffs": params["cutoffs"]}
        taken = sampled, sum(group.sampled_documents for group in groups)
        there = sum(row.bytes_in for row in sized), sum(row.rows_in for row in sized)
        selected = selection(sample, taken, there, self.config.judge.mb)
        shown = {
            "pattern": TAKEN_OVER if given else self.config.pattern,
            "sample_documents": taken[1],
            "sample_bytes": sampled,
        }
        judge(run, self.config.judge, documents, trained.ref(self.name, TOKENIZER_FILE), words, selected, shown)

    def train(
        self, run: StageRun, words: Sequence[TaskRow], counted: Sequence[TaskRow], groups: list[SampleGroup], given: "Given | None"
    ) -> Output:
        """Trains a tokenizer, or takes over the given one. Returns its files."""

        from corpusmill.tokenize.encode import Encoder

        content = given.content if given else self.trained(run, words)
        encoder = Encoder.from_json(content)
        sample = sample_report(self.config, groups, sum(row.counts["long_words_left_out"] for row in counted))
        files = {
            TOKENIZER_FILE: content,
            "tokenizer_config.json": json_file(tokenizer_config(encoder.vocabulary.special)),
            "ranks.tiktoken": tiktoken_file(encoder.ranks),
            "sample.json": json_file(sample),
        }
        return Output({**files})

    def trained(self, run: StageRun, words: Sequence[TaskRow]) -> bytes:
        """Returns the `tokenizer.json` of a tokenizer trained on the counted words."""
        from corpusmill.tokenize.bpe_train import train_bpe

        config, table = self.config, read_words(run.storage, words)
        special = config.all_special_tokens
        with run.progress.steps("tokenizer merges", config.vocab_size - len(special) - BYTES) as advance:
            tokenizer = train_bpe(table, config.vocab_size, config.minimum_frequency, config.regex, special, config.ties, advance)
        return (tokenizer.to_str(pretty=True) + "\n").encode()

    def summary(self, run: StageRun) -> dict[str, str]:
        if self.config.kind == "characters":
            return character_summary(run)
        sample = run.storage.read_json("sample.json")
        groups = sorted(sample["groups"], key=lambda group: -group["sampled_bytes"])
        shares = [_share(group) for group in groups[:SHOWN]]
        more = {"shares of it": ", ".join(shares) + (", ..." if len(groups) > SHOWN else "")} if len(groups) > 1 else {}
        return summary(run.storage.read_json(QUALITY_FILE), more)


@dataclasses.dataclass(frozen=True)
class Given:
    """A tokenizer from a file, which is taken over instead of training one."""

    content: bytes
    regex: str
    sha256: str


def read_given(file: str | None) -> Given | None:
    """Returns the tokenizer of the file, None without a file. Raises InputError if the encoder can't use it."""
    from corpusmill.tokenize.encode import Encoder

    if file is None:
        return None
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error.strerror}).") from error
    encoder = Encoder.from_json(content, file)
    return Given(content, encoder.vocabulary.pattern, encoder.sha256)


def _shard_tasks(phase: str, documents: list[FileRef]) -> list[Task]:
    return [Task(f"{phase}-{number:05d}", (shard,)) for number, shard in enumerate(documents)]


def sample_report(config: TokenizerConfig, groups: Sequence[SampleGroup], long_words: int) -> dict[str, Any]:
    """Returns the content of `sample.json`: the options, then the size of the documents and of the sample, in all and by group."""
    sampled = sum(group.sampled_bytes for group in groups)
    names = ("documents", "utf8_bytes", "sampled_documents", "sampled_bytes")
    rows = [
        {
            "group": group.name,
            **{name: getattr(group, name) for name in names},
            "share_wanted": round(group.share_wanted, 6),
            "share_reached": round(group.sampled_bytes / sampled, 6),
        }
        for group in groups
    ]
    total = {name: sum(getattr(group, name) for group in groups) for name in names}
    return {**config.sample.model_dump(mode="json"), **total, "long_words_left_out": long_words, "groups": rows}


def _share(group: Mapping[str, Any]) -> str:
    """A group's share of the sample, with the wanted share beside it where the group has too little text."""
    short = group["sampled_documents"] == group["documents"] and group["share_reached"] < group["share_wanted"] - 0.001
    wanted = f" ({group['share_wanted']:.1%} wanted; there is no more)" if short else ""
    return f"{safe_line(group['group'] or 'none', 40)} {group['share_reached']:.1%}{wanted}"


# ---- files of a tokenizer --------------------------------------------------------------------------------


TOKENIZER_FILE = "tokenizer.json"
#: The value by which transformers means "no limit"; the model's own configuration states its context.
NO_LIMIT = int(1e30)


def tokenizer_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """Returns `tokenizer_config.json`, which transformers needs beside `tokenizer.json`. `ids`: the special tokens' ids. Training adds the
    chat template."""
    special = sorted(ids, key=lambda token: ids[token])
    roles = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{role: token for role, token in roles.items() if token in special},
        "extra_special_tokens": [token for token in special if token not in (END_OF_TEXT, PAD)],
        "model_max_length": NO_LIMIT,
        "clean_up_tokenization_spaces": False,
    }


def json_file(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


# ---- characters as tokens --------------------------------------------------------------------------------


CHARACTERS_FILE = "characters.json"


class CharactersWorker(Worker):
    """Counts each character of one shard of documents."""

    def process(self, task: Task) -> Output:
        path = task.inputs[0].path
        counts: Counter[str] = Counter()
        rows = 0
        for table in iter_tables(self.run, path, ["id", "text"]):
            counts.update(count_characters(checked(table, self.run.path(path), rows)["text"]))
            rows += table.num_rows
        size = sum(len(character.encode()) * count for character, count in counts.items())
        return Output({f"counts/{task.key}.json": json_file(dict(sorted(counts.items())))}, rows_in=rows, kept=rows, bytes_in=size)


def take_characters(run: StageRun, config: TokenizerConfig) -> None:
    """Publishes `tokenizer.json`, `tokenizer_config.json` and `characters.json` (the count of each character, by code point)."""
    tasks = [Task(f"characters-{number:05d}", (shard,)) for number, shard in enumerate(run.documents())]
    rows = run.map("characters", CharactersWorker, tasks, config=Config())
    inputs = [row.ref(run.stage.name, row.outputs[0].path) for row in rows]
    run.once("train", inputs, lambda identity: _character_files(run, rows, config))


def _character_files(run: StageRun, rows: Sequence[TaskRow], config: TokenizerConfig) -> Output:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(run.storage.read_json(row.outputs[0].path))
    if not counts:
        raise InputError(f"tokenizer: the documents in {run.run.root} hold no text.")
    special = config.all_special_tokens
    if twice := sorted(counts.keys() & set(special)):
        raise InputError(f"tokenizer: the special token {twice[0]!r} is a character of the documents: put marks around it.")
    files = {
        TOKENIZER_FILE: (make_character_tokenizer(counts, special).to_str(pretty=True) + "\n").encode(),
        "tokenizer_config.json": json_file(tokenizer_config({token: number for number, token in enumerate(special)})),
        CHARACTERS_FILE: json_file(dict(sorted(counts.items()))),
    }
    return Output({**files})


def character_summary(run: StageRun) -> dict[str, str]:
    counts: dict[str, int] = run.storage.read_json(CHARACTERS_FILE)
    special = len(run.storage.read_json(TOKENIZER_FILE)["added_tokens"])
    return {
        "vocabulary": f"{len(counts) + special:,} tokens: {len(counts):,} characters, and {special} special ones",
        "characters": f"{sum(counts.values()):,} in the documents",
    }
