"""Tests the evaluation of a run's tokenizer: its documents, its figures, and what is redone."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiktoken import _tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.report.read import RunReader
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.judge import THIS_RUN, never_produced, usage
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.words import splitter


def stage(**options):
    return TokenizerStage(TokenizerStage.Config(**{"vocab_size": 700, **options}))


def quality(run):
    return json.loads(run.read_bytes("tokenizer/quality.json"))


def tokens_of(tokenizer, texts):
    tokenizer.encode_special_tokens = True
    return sum(len(found.ids) for found in tokenizer.encode_batch(texts, add_special_tokens=False))


@pytest.fixture
def texts(english, foreign):
    return [*english[:40], "", *foreign[:20]]


@pytest.fixture
def run(make_run, make_documents, texts):
    languages = ["en"] * 41 + ["xx", None] * 10
    return make_run([make_documents(texts, language=languages).slice(0, 30), make_documents(texts, language=languages).slice(30)])


def test_figures_are_those_of_tokenizers_on_the_same_text(run, execute, texts, tokenizers_by_pattern, tmp_path):
    other = tmp_path / "other.json"
    other.write_bytes(tokenizers_by_pattern("o200k"))
    execute(run, stage(judge={"compare": [str(other)]}))
    found = quality(run)
    assert found["judged"] == {"held_out": False, "documents": 61, "utf8_bytes": sum(len(text.encode()) for text in texts)}
    for name, path in ((THIS_RUN, run.path("tokenizer/tokenizer.json")), (str(other), str(other))):
        tokenizer, told = Tokenizer.from_file(path), found["tokenizers"][name]
        assert told["tokens"] == tokens_of(tokenizer, texts)
        assert told["bytes_per_token"] == round(found["judged"]["utf8_bytes"] / told["tokens"], 4)
        assert list(told["languages"]) == ["en", "xx", "(unknown)"] and list(told["hosts"]) == ["site.test"]
        assert told["languages"]["xx"]["tokens"] == tokens_of(tokenizer, texts[41::2])
        assert told["languages"]["en"]["utf8_bytes"] == sum(len(text.encode()) for text in texts[:41])
        assert told["languages"]["en"]["words"] < told["words"] and 0 < told["words_split"] < 1 < told["tokens_per_word"]
    assert found["sample_documents"] == 61 and found["vocabulary_size"] == 700


def test_judged_on_documents_that_training_has_not_seen(make_run, make_documents, execute, english):
    """One of 3.6 MB is for training, and one of the rest for evaluation; hashes choose the documents, in any layout."""
    texts = [f"{text} {number}" * 30 for number, text in enumerate(english[:60])]
    table = make_documents(texts)
    runs = [make_run([table], "one"), make_run([table.take(list(range(59, 20, -1))), table.slice(0, 21)], "many")]
    for run in runs:
        execute(run, stage(sample={"mb": 1}, judge={"mb": 1}))
    found = [quality(run) for run in runs]
    assert found[0] == found[1]
    assert found[0]["judged"]["held_out"] and 0.5e6 < found[0]["judged"]["utf8_bytes"] < 1.7e6
    trained = found[0]["sample_documents"]
    every = make_run([table], "all")
    execute(every, stage(sample={"mb": 1}, judge={"mb": 100}))
    judged = quality(every)["judged"]
    assert judged["documents"] == 60 - trained > found[0]["judged"]["documents"]
    assert judged["utf8_bytes"] == sum(len(text.encode()) for text in texts) - quality(every)["sample_bytes"]


def test_comparing_with_others_trains_nothing_again(run, execute, tokenizers_by_pattern, tmp_path):
    execute(run, stage())
    before = {
        path: run.read_bytes(path)
        for path in run.list_files("tokenizer")
        if not path.endswith((".jsonl", "quality.json")) and "judged" not in path
    }
    (tmp_path / "other.json").write_bytes(tokenizers_by_pattern("cl100k"))
    options = {"judge": {"compare": [str(tmp_path / "other.json")]}}
    assert execute(run, stage(**options)).performed == 3  # two shards, the sum
    assert all(run.read_bytes(path) == content for path, content in before.items())
    assert execute(run, stage(**options)).performed == 0
    (tmp_path / "other.json").write_bytes(tokenizers_by_pattern("gpt2"))
    assert execute(run, stage(**options)).performed == 3
    with pytest.raises(InputError, match=r"nothing\.json: no such tokenizer"):
        execute(run, stage(judge={"compare": [str(tmp_path / "nothing.json")]}))


def test_uses_of_tokens_are_those_of_the_sample(run, execute, texts):
    execute(run, stage())
    tokenizer = Tokenizer.from_file(run.path("tokenizer/tokenizer.json"))
    wanted = [0] * 700
    for found in tokenizer.encode_batch(texts, add_special_tokens=False):
        for number in found.ids:
            wanted[number] += 1
    assert pq.read_table(run.path("tokenizer/uses.parquet"))["uses"].to_pylist() == wanted
    usage = quality(run)["usage"]
    assert usage["unused_tokens"] == sum(count == 0 for count in wanted[4:])
    assert usage["undertrained"]["tokens"] == sum(count < 100 for count in wanted[4:])


def test_a_run_goes_on_where_a_published_tokenizer_is_not_reached(run, execute, monkeypatch, tmp_path):
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    for name, value in (("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_EXTRA_INDEX_URL", ""), ("PIP_RETRIES", "0")):
        monkeypatch.setenv(name, value)
    execute(run, stage(judge={"compare": ["gpt2"]}))
    assert list(quality(run)["tokenizers"]) == [THIS_RUN]
    (row,) = (row for row in RunReader(run.root).stages["tokenizer"].tasks if row.task == "quality")
    assert len(row.warnings) == 1 and row.warnings[0].startswith("gpt2 is not compared: gpt2.tiktoken: pip can't download mlx-whisper")
    assert "\n" not in row.warnings[0]


BYTES = {bytes([byte]): byte for byte in range(256)}
RANKS = BYTES | {b"ab": 256, b"abc": 257, b"\xe6\x9d": 258, b"wxyz": 259, b"a b": 260, b"b ": 261}


def test_tiktoken_takes_a_whole_piece_so_only_the_pattern_can_part_a_token():
    encoder = Encoder.from_ranks(RANKS, PATTERNS["gpt2"], "x")
    bpe = _tiktoken.CoreBPE(RANKS, {}, PATTERNS["gpt2"])
    found = never_produced(encoder, {number: token for token, number in RANKS.items()})
    lost = [number for token, number in RANKS.items() if token.isascii() and bpe.encode_ordinary(token.decode()) != [number]]
    assert found == lost == [260, 261]
    assert bpe.encode_single_piece(b"\xe6\x9d") == [258]


def test_merges_that_lose_to_others_are_those_that_tokenizers_loses():
    """`qrs` has no merge; in `wxyz`, `xy` is merged first, and then `wx` and `yz` do not occur."""
    vocabulary = {character: number for number, character in enumerate(byte_characters())}
    merges = [("x", "y"), ("w", "x"), ("y", "z"), ("wx", "yz"), ("a", "b")]
    for token in [*("".join(pair) for pair in merges), "qrs"]:
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter("gpt2"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    encoder = Encoder.from_json(tokenizer.to_str().encode())
    found = never_produced(encoder, {number: token for token, number in encoder.ranks.items()})
    lost = [number for token, number in vocabulary.items() if token.isascii() and tokenizer.encode(token).ids != [number]]
    assert found == lost == [vocabulary["wxyz"], vocabulary["qrs"]]


def test_tokens_that_are_hardly_used_are_named_by_their_text(tokenizers_by_pattern):
    encoder = Encoder.from_json(tokenizers_by_pattern("gpt2"))
    uses = np.full(encoder.vocabulary_size, 50)
    by_id = {number: token for token, number in encoder.ranks.items()}
    single, first, second = encoder.ranks[b"\xff"], *[number for number, token in sorted(by_id.items()) if len(token) > 1][:2]
    uses[[single, first, second]] = 0, 9, 0
    found = usage(encoder, uses, 10)
    assert (found["unused_tokens"], found["unused_bytes"], found["undertrained"]["tokens"]) == (2, 1, 3)
    assert found["undertrained"]["worst"] == [
        {"id": second, "text": by_id[second].decode(), "uses": 0}, {"id": first, "text": by_id[first].decode(), "uses": 9},
    ]  # fmt: skip
    assert found["never_produced"] == {"tokens": 0, "first": []}
