"""Judges the tokenizer: on text that it was not trained on, next to other tokenizers, by language and host."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import iter_tables, open_parquet, read_table
from corpusmill.pipeline.stage import Output, Task, Worker
from corpusmill.text.buffers import text_array
from corpusmill.tokenize.compared_tokenizers import COLUMNS, PUBLISHED, add_up, by_tokenizer, file_of, from_json, measure, read_tokenizer
from corpusmill.tokenize.documents import BUCKETS, buckets, hashes
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.sampling import columns_needed, in_sample, read_words
from corpusmill.tokenize.tokenizer_config import GroupsConfig, JudgeConfig

THIS_RUN = "this run"
#: The `pattern` in `quality.json` of a tokenizer that was taken over.
TAKEN_OVER = "given"
QUALITY_FILE = "quality.json"
USES_FILE = "uses.parquet"
WORDS_AT_ONCE = 1 << 20
TOKENIZER = "tokenizer/tokenizer.json"
#: Held-out text of fewer UTF-8 bytes is too little to judge on.
LEAST_HELD_OUT = 1_000_000
#: About the least number of documents to judge on, even where documents are large.
LEAST_DOCUMENTS = 16
#: Added to the sample's seed, so that the judged documents are chosen independently of the sample.
OTHER_CHOICE = 1 << 32


def selection(sample: dict[str, Any], sampled: tuple[int, int], total: tuple[int, int], mb: int) -> dict[str, Any]:
    """Returns which documents are judged, as JSON (for `judged_documents`): about `mb` MB, but at least about LEAST_DOCUMENTS documents.
    They are from outside the sample or, where these have less than LEAST_HELD_OUT bytes, from the sample.

    `sample`: the arguments of `in_sample`; `sampled` and `total`: (bytes, documents).
    """
    held_out = total[0] - sampled[0] >= LEAST_HELD_OUT
    size, documents = (total[0] - sampled[0], total[1] - sampled[1]) if held_out else sampled
    share = max(mb * 1e6 / max(size, 1), LEAST_DOCUMENTS / max(documents, 1))
    return {"sample": sample, "held_out": held_out, "buckets": min(BUCKETS, math.ceil(BUCKETS * share))}


def judged_documents(documents: pa.Table, selected: dict[str, Any]) -> pa.Table:
    """Returns the documents of a table that belong to a selection."""
    groups = GroupsConfig(**selected["sample"]["groups"])
    found = in_sample(documents, groups, dict(selected["sample"]["cutoffs"]))
    if selected["held_out"]:
        found = documents.filter(pc.invert(pc.is_in(documents["id"], found["id"].combine_chunks())))
    return found.filter(pa.array(buckets(hashes(found["id"], groups.seed + OTHER_CHOICE)) < selected["buckets"]))


class JudgeWorker(Worker):
    """Measures all tokenizers on the judged documents of one shard."""

    config: JudgeConfig

    def setup(self) -> None:
        tokenizer = from_json(THIS_RUN, self.run.read_bytes(TOKENIZER), self.run.path(TOKENIZER))
        self.tokenizers = [tokenizer, *(read_tokenizer(given) for given in self.config.compare)]

    def process(self, task: Task) -> Output:
        path, found, rows = task.inputs[0].path, [], 0
        with open_parquet(self.run, path) as file:
            names = file.schema_arrow.names
            groups = columns_needed(GroupsConfig(**self.params["selection"]["sample"]["groups"]), names, self.run.path(path))
        columns = ["id", "text", *(name for name in COLUMNS if name in names), *groups]
        for table in iter_tables(self.run, path, list(dict.fromkeys(columns))):
            table = judged_documents(table, self.params["selection"])
            rows += table.num_rows
            if table.num_rows:
                found.append(measure(table, self.tokenizers))
        return Output({f"judged/{task.key}.parquet": add_up(found)}, rows_in=rows, kept=rows)


def judge(
    run: StageRun,
    config: JudgeConfig,
    documents: Sequence[FileRef],
    tokenizer: FileRef,
    words: Sequence[TaskRow],
    selected: dict[str, Any],
    trained: dict[str, Any],
) -> None:
    """Runs the phases `usage`, `judge` and `quality`. `words`: the phase that counted the words of the sample. `trained`: facts about the
    training, which come first in `quality.json`."""
    counted = [row.ref(run.stage.name, row.outputs[0].path) for row in words]
    used = run.once("usage", [tokenizer, *counted], lambda identity: _usage(run, words), config=Config())
    config, missing = reachable(config)
    given = [_reference(name) for name in config.compare]
    tasks = [Task(f"judge-{number:05d}", (shard, tokenizer, *given)) for number, shard in enumerate(documents)]
    rows = run.map("judge", JudgeWorker, tasks, {"selection": selected}, config=config)

    def quality(identity: str) -> Output:
        uses = read_table(run.storage, USES_FILE)["uses"].to_numpy()
        encoder = Encoder.read(run.run, TOKENIZER)
        found = by_tokenizer(add_up(read_table(run.storage, row.outputs[0].path) for row in rows), [THIS_RUN, *config.compare])
        content = {
            "vocabulary_size": encoder.vocabulary_size,
            **trained,
            "usage": usage(encoder, uses, config.undertrained_below),
            "judged": {"held_out": selected["held_out"], **{name: found[THIS_RUN][name] for name in ("documents", "utf8_bytes")}},
            "selection": selected,
            "tokenizers": found,
        }
        return Output({QUALITY_FILE: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()}, warnings=missing)

    inputs = [tokenizer, used.ref(run.stage.name, USES_FILE), *(row.ref(run.stage.name, row.outputs[0].path) for row in rows)]
    run.once("quality", inputs, quality, {"trained": trained, "selection": selected})


def reachable(config: JudgeConfig) -> tuple[JudgeConfig, list[str]]:
    """Returns the configuration without the published tokenizers that can't be fetched now, and a sentence about each of them.

    A run goes on without a published tokenizer, but a file that the recipe names must exist.
    """
    there, missing = [], []
    for name in config.compare:
        try:
            file_of(name)
        except InputError as error:
            if name not in PUBLISHED:
                raise
            missing.append(f"{name} is not compared: {error}")
        else:
            there.append(name)
    return config.model_copy(update={"compare": there}), missing


def _usage(run: StageRun, words: Sequence[TaskRow]) -> Output:
    """Writes how often the sample uses each token: `uses.parquet`, a row for each id."""
    encoder = Encoder.read(run.run, TOKENIZER)
    uses = np.zeros(encoder.vocabulary_size, np.int64)
    for row in words:
        for batch in read_words(run.storage, [row]).to_batches(max_chunksize=WORDS_AT_ONCE):
            uses += token_uses(encoder, batch["word"], batch["count"].to_numpy())
    return Output({USES_FILE: pa.table({"uses": uses})})


def _reference(given: str) -> FileRef:
    """Returns a tokenizer to compare with, as an input of a task."""
    path, _ = file_of(given)
    if given in PUBLISHED:
        return FileRef(PUBLISHED[given].name, PUBLISHED[given].sha256)
    return FileRef(given, hashlib.sha256(Path(path).read_bytes()).hexdigest(), Path(path).stat().st_size)


def summary(quality: dict[str, Any], sample: dict[str, str]) -> dict[str, str]:
    """Returns lines for the terminal; `sample` are further lines about the sample."""
    judged, tokenizers, usage = quality["judged"], quality["tokenizers"], quality["usage"]
    text = "that it was not trained on" if judged["held_out"] else "of its own sample"
    if quality["pattern"] == TAKEN_OVER:  # its training text is not known
        text = "of the run"

    def compared(name: str, form: str) -> str:
        first, *others = [f"{form.format(found[name])}" if found[name] is not None else "–" for found in tokenizers.values()]
        comparison = ", ".join(f"{other} {value}" for other, value in zip([*tokenizers][1:], others, strict=True))
        return first + (f" ({comparison})" if comparison else "")

    rare = usage["undertrained"]
    return {
        "vocabulary": f"{quality['vocabulary_size']:,} tokens (used on the sample: {usage['unused_tokens']:,} never, "
        f"{rare['tokens']:,} less than {rare['below']:,} times)",
        "sample": f"{quality['sample_documents']:,} documents, {quality['sample_bytes'] / 1e6:,.1f} MB",
        **sample,
        "judged on": f"{judged['documents']:,} documents {text}, {judged['utf8_bytes'] / 1e6:,.1f} MB",
        "bytes per token": compared("bytes_per_token", "{:.2f}"),
        "tokens per word": compared("tokens_per_word", "{:.2f}"),
        "words split": compared("words_split", "{:.1%}"),
    }


# ---- how often each token is used ------------------------------------------------------------------------


#: The largest number of tokens of each kind that a report names.
NAMED = 30


def token_uses(encoder: Encoder, words: pa.Array, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns int64 by id: how often each id occurs in these words, which occur `counts` times each."""
    ids, lengths = encoder.encode_pieces(words)
    uses = np.zeros(encoder.vocabulary_size, np.int64)
    np.add.at(uses, ids, np.repeat(counts, lengths))
    return uses


def usage(encoder: Encoder, uses: npt.NDArray[np.int64], below: int) -> dict[str, Any]:
    """Returns the section on tokens of `quality.json`, without special tokens.

    `undertrained` tokens are used less than `below` times, the least used first. A token is `never_produced` where encoding its own
    text does not give it: other merges come first, or the pattern cuts the text.
    """
    bytes_of = {number: token for token, number in encoder.ranks.items()}
    ids = np.array(sorted(bytes_of), np.int64)
    alone = np.array([len(bytes_of[number]) == 1 for number in ids.tolist()])
    rare = uses[ids] < below
    worst = ids[rare & ~alone]
    worst = worst[np.argsort(uses[worst], kind="stable")]
    never = never_produced(encoder, bytes_of)
    return {
        "unused_tokens": int((uses[ids] == 0).sum()),
        "unused_bytes": int((uses[ids[alone]] == 0).sum()),
        "undertrained": {
            "below": below,
            "tokens": int(rare.sum()),
            "worst": [{**_named(number, bytes_of), "uses": int(uses[number])} for number in worst[:NAMED].tolist()],
        },
        "never_produced": {"tokens": len(never), "first": [_named(number, bytes_of) for number in never[:NAMED]]},
    }


def never_produced(encoder: Encoder, bytes_of: dict[int, bytes]) -> list[int]:
    """Returns the ids of tokens that encoding does not give for the token's own text (or bytes, where these are not UTF-8)."""
    numbers = np.array(sorted(bytes_of), np.int64)
    tokens = [bytes_of[number] for number in numbers.tolist()]
    offsets = np.concatenate(([0], np.cumsum([len(token) for token in tokens]))).astype(np.int64)
    array = text_array(np.frombuffer(b"".join(tokens), np.uint8), offsets)  # some tokens are not UTF-8, but kernels read bytes
    whole = np.array([_is_text(token) for token in tokens])
    lost = np.zeros(len(tokens), np.bool_)
    for mask, encode in ((whole, encoder.encode_column), (~whole, encoder.encode_pieces)):
        ids, counts = encode(array.filter(pa.array(mask)))
        first = ids[np.minimum(np.cumsum(counts) - counts, max(len(ids) - 1, 0))]
        lost[mask] = (counts != 1) | (first != numbers[mask])
    found: list[int] = numbers[lost].tolist()
    return found


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def _named(number: int, bytes_of: dict[int, bytes]) -> dict[str, Any]:
    return {"id": number, "text": bytes_of[number].decode("utf-8", "backslashreplace")}
