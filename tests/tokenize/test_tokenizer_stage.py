"""The tokenizer stage: what it publishes, and what it depends on."""

import json

import pytest
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_START_ID, PAD_ID, SPECIAL_TOKENS
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.tokenizer_stage import TokenizerStage


def stage(**options):
    return TokenizerStage(TokenizerStage.Config(**{"vocabulary_size": 700, **options}))


def published(run):
    return {path: run.read_bytes(path) for path in run.list_files() if path.startswith("tokenizer/") and "/" not in path[10:]}


@pytest.fixture
def run(make_run, make_documents, english, execute):
    run = make_run([make_documents(english[:60]), make_documents(english[60:100])])
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
    assert transformer("<|im_start|>")["input_ids"] == [IM_START_ID]  # a template's markers; Encoder never gives them
    assert transformer.decode([IM_START_ID, *ids], skip_special_tokens=True) == text


def test_ranks_file_is_the_same_tokenizer(run):
    assert load_tiktoken_bpe(run.path("tokenizer/ranks.tiktoken")) == Encoder.read(run, "tokenizer/tokenizer.json").ranks


def test_same_bytes_for_every_layout_and_again(run, make_run, make_documents, execute, english):
    documents = make_documents(english[:60])
    again = make_run([make_documents(english[60:100]), documents.slice(20), documents.slice(0, 0), documents.slice(0, 20)], "again")
    execute(again, stage())
    files = published(run)
    assert published(again) == files | {"tokenizer/manifest.jsonl": published(again)["tokenizer/manifest.jsonl"]}
    assert execute(run, stage()).performed == 0
    assert published(run) == files


def test_the_sample_is_a_choice_by_seed(make_run, make_documents, execute, english, foreign):
    texts = [text * 20 for text in english[:60]]  # 2.4 MB
    found = []
    for seed in (0, 0, 1):
        run = make_run([make_documents(texts)], f"run{len(found)}")
        execute(run, stage(sample_mb=1, seed=seed))
        found.append(json.loads(run.read_bytes("tokenizer/quality.json")))
    assert found[0] == found[1] != found[2]
    assert 1_000_000 <= found[0]["sample_bytes"] < 1_100_000


def test_too_large_a_vocabulary_is_refused_and_nothing_is_published(make_run, make_documents, execute, english):
    run = make_run([make_documents(english[:2])])
    with pytest.raises(InputError, match=r"supports a vocabulary of \d+, not of 50000"):
        execute(run, stage(vocabulary_size=50_000))
    assert not run.exists("tokenizer/tokenizer.json")


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_documents_without_text_are_refused(make_run, make_documents, execute, texts):
    with pytest.raises(InputError, match="no text to train on"):
        execute(make_run([make_documents(texts)]), stage())
