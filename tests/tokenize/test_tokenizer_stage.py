"""Tests the tokenizer stage: its files, and the inputs that they depend on."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_START_ID, PAD_ID, SPECIAL_TOKENS
from corpusmill.report.queries.tokens import judged_text, judgement
from corpusmill.tokenize import tokenizer_stage
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.tokenizer_stage import TokenizerStage


def stage(**options):
    return TokenizerStage(TokenizerStage.Config(**{"vocab_size": 700, **options}))


def published(run):
    return {path: run.read_bytes(path) for path in run.list_files() if path.startswith("tokenizer/") and "/" not in path[10:]}


@pytest.fixture(scope="module")
def run(tmp_path_factory, publish_run, make_documents, english, execute):
    run = publish_run([make_documents(english[:60]), make_documents(english[60:100])], tmp_path_factory.mktemp("tokenizer") / "run")
    execute(run, stage())
    return run


def test_opens_in_tokenizers_and_transformers_with_equal_ids(run, english):
    ours = Encoder.read(run, "tokenizer/tokenizer.json")
    theirs = Tokenizer.from_file(run.path("tokenizer/tokenizer.json"))
    transformer = AutoTokenizer.from_pretrained(run.path("tokenizer"))
    for text in [*english[:5], "Ünïcödé 中文 🙂\n\n  x"]:
        ids = ours.encode(text)
        assert theirs.encode(text).ids == ids
        assert transformer(text)["input_ids"] == ids
        assert transformer.decode(ids) == text
    assert len(transformer) == 700
    assert transformer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    assert (transformer.eos_token_id, transformer.bos_token_id, transformer.pad_token_id) == (EOT_ID, EOT_ID, PAD_ID)
    assert transformer("<|im_start|>")["input_ids"] == [IM_START_ID]  # a template's markers, which Encoder never returns
    assert transformer.decode([IM_START_ID, *ids], skip_special_tokens=True) == text
    assert load_tiktoken_bpe(run.path("tokenizer/ranks.tiktoken")) == ours.ranks


def test_same_bytes_for_every_layout_and_number_of_ranges_and_again(run, make_run, make_documents, execute, english, monkeypatch):
    documents = make_documents(english[:60])
    again = make_run([make_documents(english[60:100]), documents.slice(20), documents.slice(0, 0), documents.slice(0, 20)], "again")
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_stage, "RANGE_BYTES", 50_000)
        execute(again, stage())
    assert len(again.list_files("tokenizer/words")) > 2 > len(run.list_files("tokenizer/words"))
    files = published(run)
    assert published(again) == files | {"tokenizer/manifest.jsonl": published(again)["tokenizer/manifest.jsonl"]}
    assert execute(run, stage()).performed == 0
    assert published(run) == files


def test_the_sample_is_stated(make_run, make_documents, execute, english, foreign):
    texts = [text * 5 for text in english + foreign]  # 3.8 MB
    languages = ["en"] * len(english) + ["xx"] * len(foreign)
    sample = {"mb": 1, "by": "language", "weights": {"en": 0.6, "xx": 0.4}}
    found = []
    for name, cut in (("one", [0, len(texts)]), ("three", [0, 17, 300, len(texts)])):
        documents = make_documents(texts, language=languages)
        run = make_run([documents.slice(start, end - start) for start, end in itertools.pairwise(cut)], name)
        execute(run, stage(sample=sample))
        found.append(json.loads(run.read_bytes("tokenizer/sample.json")))
        assert published(run)["tokenizer/tokenizer.json"]
    assert found[0] == found[1]
    assert found[0] | sample == found[0] and found[0]["documents"] == len(texts)
    groups = {row["group"]: row for row in found[0]["groups"]}
    assert set(groups) == {"en", "xx"} and groups["xx"]["documents"] == len(foreign)
    assert groups["en"]["utf8_bytes"] == sum(len(text.encode()) for text in texts[: len(english)])
    assert [groups[name]["share_wanted"] for name in ("en", "xx")] == [0.6, 0.4]
    assert groups["xx"]["share_reached"] == pytest.approx(min(0.4, groups["xx"]["utf8_bytes"] / 1e6), abs=0.03)
    quality = json.loads(run.read_bytes("tokenizer/quality.json"))
    assert quality["sample_bytes"] == found[0]["sampled_bytes"] == sum(row["sampled_bytes"] for row in groups.values())
    assert quality["judged"]["held_out"] and quality["judged"]["utf8_bytes"] == found[0]["utf8_bytes"] - found[0]["sampled_bytes"]


def test_another_size_counts_no_words_again(run, copy_of, execute):
    run = copy_of(run)
    assert execute(run, stage(vocab_size=600)).performed == 5  # training, uses, judging two shards, their sum
    assert execute(run, stage(vocab_size=600, sample={"seed": 1})).performed > 1


def test_special_tokens_of_ones_own_are_reserved_and_never_come_from_text(make_run, make_documents, execute, english):
    special = ["<|tool|>", "[INST]", "<|é|>"]
    run = make_run([make_documents([*english[:60], "<|tool|> [INST] <|é|> <|im_start|>" * 50])])
    execute(run, stage(special_tokens=special))
    ours = Encoder.read(run, "tokenizer/tokenizer.json")
    theirs = Tokenizer.from_file(run.path("tokenizer/tokenizer.json"))
    theirs.encode_special_tokens = True
    transformer = AutoTokenizer.from_pretrained(run.path("tokenizer"))
    assert transformer.convert_tokens_to_ids([*SPECIAL_TOKENS, *special]) == list(range(7))
    assert set(special) <= set(transformer.all_special_tokens)
    for text in ["<|tool|>", "a [INST]b<|é|> <|endoftext|><|pad|>", "".join(SPECIAL_TOKENS + tuple(special))]:
        ids = ours.encode(text)
        assert min(ids) >= 7 and theirs.encode(text).ids == ids
        assert transformer(text, split_special_tokens=True)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=False) == text
    assert set(load_tiktoken_bpe(run.path("tokenizer/ranks.tiktoken")).values()) == set(range(7, 700))


@pytest.mark.parametrize(
    ("options", "cuts"),
    [
        ({"pattern": "cl100k", "digits": 1}, ["1", "2", "3", "4"]),
        ({"pattern": r"\p{L}+| ?[^\p{L}]"}, ["1", "2", "3", "4"]),
    ],
)
def test_patterns_and_digits(make_run, make_documents, execute, english, options, cuts):
    run = make_run([make_documents([*english[:60], "\n1234" * 500])])
    execute(run, stage(**options))
    encoder = Encoder.read(run, "tokenizer/tokenizer.json")
    transformer = AutoTokenizer.from_pretrained(run.path("tokenizer"))
    assert [transformer.decode([token]) for token in encoder.encode("1234")] == cuts
    for text in english[60:70]:
        assert transformer(text)["input_ids"] == encoder.encode(text)
        assert transformer.decode(encoder.encode(text)) == text


def test_a_tokenizer_is_taken_over(run, make_run, make_documents, execute, english):
    file = run.path("tokenizer/tokenizer.json")
    other = make_run([make_documents(english[100:130])], "other")
    execute(other, stage(vocab_size=32_768, file=file))
    theirs, ours = published(run), published(other)
    for name in ("tokenizer.json", "tokenizer_config.json", "ranks.tiktoken"):
        assert ours[f"tokenizer/{name}"] == theirs[f"tokenizer/{name}"]
    quality = json.loads(ours["tokenizer/quality.json"])
    encoder = Encoder.read(run, "tokenizer/tokenizer.json")
    assert quality["tokenizers"]["this run"]["tokens"] == sum(len(encoder.encode(text)) for text in english[100:130])
    assert (quality["vocabulary_size"], quality["pattern"]) == (700, "given")
    assert judged_text(judgement(quality)).startswith("30 documents of the run, ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "can't be read"), (b'{"model": {"type": "WordPiece"}}', "tokenizer.json: ")],
)
def test_what_can_not_be_taken_over_is_refused(tmp_path, make_run, make_documents, execute, english, content, sentence):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    run = make_run([make_documents(english[:2])])
    with pytest.raises(InputError, match=sentence):
        execute(run, stage(vocab_size=32_768, file=str(tmp_path / "tokenizer.json")))
    assert not run.exists("tokenizer")


def test_documents_without_text_are_refused(make_run, make_documents, execute):
    with pytest.raises(InputError, match="no text to train on"):
        execute(make_run([make_documents(["", ""])]), stage())


def test_a_text_that_is_no_utf8_is_named(make_run, make_documents, execute, english):
    good = make_documents(english[:30])
    encoded = [*(text.encode() for text in english[:29]), b"a\xe4\xb8"]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    texts = pa.LargeStringArray.from_buffers(30, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))
    run = make_run([good.set_column(good.column_names.index("text"), good.schema.field("text"), texts)])
    with pytest.raises(InputError, match=r"ingest-0\.parquet: row 29 is not valid UTF-8 in the column text"):
        execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=600)))


@pytest.mark.parametrize("name", ["id", "text"])
def test_a_document_without_id_or_text_is_one_sentence(make_run, make_documents, execute, english, name):
    table = make_documents(english[:30])
    kind = table[name].type
    values = pa.array([None, *table[name].to_pylist()[1:]], kind)
    run = make_run([table.set_column(table.column_names.index(name), pa.field(name, kind), values)])
    with pytest.raises(InputError, match=rf"ingest-0\.parquet: a document has no {name} \(null\)"):
        execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=600)))
