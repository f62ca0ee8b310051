"""Tests `tokens find`: every document with a text is found, and its address leads back to the text."""

import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from corpusmill.pipeline.errors import InputError
from corpusmill.report.tokens.find import find, show_findings
from corpusmill.report.tokens.trace import trace
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage

HOSTILE = "before \x1b[31mred \u202e after"


@pytest.fixture(scope="module")
def texts(english, foreign):
    return [*english[:60], "", *foreign[:30], *english[10:14], HOSTILE * 3, "naïve 🙂 " * 200]


@pytest.fixture(scope="module")
def run(tmp_path_factory, publish_run, make_documents, execute, texts):
    """Makes a run of three files of documents, in several shards of both splits; documents of a last file are not encoded."""
    table = make_documents(texts)
    run = publish_run([table.slice(0, 40), table.slice(40, 30), table.slice(70)], tmp_path_factory.mktemp("find") / "a run")
    execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=700)))
    execute(run, TokensStage(TokensStage.Config(shard_tokens=8_000, validation_share=0.1)))
    return run


def arguments(command):
    words = shlex.split(command)
    assert words[:2] == ["corpusmill", "trace"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    return words[2], int(options.pop("--shard")), int(options.pop("--token")), options.pop("--split", "train")


@settings(max_examples=5)
@given(data=st.data())
def test_any_stretch_of_any_document(run, texts, data):
    """Compares with Python's own search; each address is traced back to the text, also where it begins inside a token or a word."""
    source = data.draw(st.sampled_from([text for text in texts if text]))
    start = data.draw(st.integers(0, len(source) - 1))
    wanted = source[start : start + data.draw(st.integers(1, 40))]
    found = find(run.root, wanted, limit=1000)
    holding = {number: text for number, text in enumerate(texts) if wanted in text}
    assert (found.documents, found.outside, found.notes) == (len(holding), 0, [])
    assert found.occurrences == sum(text.count(wanted) for text in holding.values())
    assert [one.document["offset"] // 1000 for one in found.found] == list(holding)
    for one, text in zip(found.found, holding.values(), strict=True):
        assert one.byte == len(text[: text.index(wanted)].encode()) and one.occurrences == text.count(wanted)
        assert one.snippet.characters == wanted and one.snippet.before + wanted + one.snippet.after in text
        assert len(one.places) == 1
        traced = trace(*arguments(one.places[0].command(run.root)))
        assert traced.document.id == one.document["id"] and traced.around.raw
        assert traced.around.first <= one.byte < traced.around.first + len(traced.around.raw)
        assert text.encode()[one.byte :].startswith(wanted.encode())
        assert text.encode()[traced.around.first :].startswith(traced.around.raw)


def test_upper_and_lower_case(run, texts):
    found = find(run.root, "tHE ROMAN", ignore_case=True, limit=1000)
    holding = [text for text in texts if re.search("the roman", text, re.IGNORECASE)]
    assert found.documents == len(holding) > 0 and all(one.snippet.characters.lower() == "the roman" for one in found.found)
    assert find(run.root, "tHE ROMAN").documents == 0
    assert find(run.root, "NAÏVE 🙂", ignore_case=True).found[0].snippet.characters == "naïve 🙂"


def test_the_limit_shows_the_first_and_counts_all(run, texts):
    every, some = find(run.root, " the ", limit=1000), find(run.root, " the ", limit=3)
    assert (some.documents, some.occurrences) == (every.documents, every.occurrences) and every.documents > 10
    assert [one.document for one in some.found] == [one.document for one in every.found[:3]]
    assert [one.places for one in some.found] == [one.places for one in every.found[:3]]
    assert find(run.root, " the ", limit=0).found == []


def test_a_file_of_which_a_part_can_not_be_read_is_left_out_whole(run, texts, tmp_path):
    copy = Path(shutil.copytree(run.root, tmp_path / "copy"))
    path = copy / "ingest/data/ingest-1.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=10)
    column = pq.read_metadata(path).row_group(1).column(pq.read_schema(path).names.index("text"))
    begin = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    found = find(str(copy), " the ", limit=1000)
    readable = texts[:40] + texts[70:]
    assert "documents are left out" in found.notes[0] and len(found.notes) == 1
    assert found.documents == len(found.found) == sum(" the " in text for text in readable)
    assert found.occurrences == sum(text.count(" the ") for text in readable)
    assert all(one.places for one in found.found) and found.outside == 0


def test_shown_harmlessly_and_as_json(run, capsys):
    found = find(run.root, "red")
    console = Console(file=io.StringIO(), width=120, soft_wrap=True)
    show_findings(run.root, found, False, console)
    shown = console.file.getvalue()
    assert "\x1b" not in shown and "\u202e" not in shown and "⟦red⟧" in shown
    hostile = find(run.root, "red", limit=1)
    for name in ("id", "url", "source", "data_file"):
        hostile.found[0].document[name] = HOSTILE
    show_findings(run.root, hostile, False, console)
    assert "\x1b" not in console.file.getvalue() and "\u202e" not in console.file.getvalue()
    assert "corpusmill trace '" in shown  # the folder's name has a space
    show_findings(run.root, found, True, console)
    told = json.loads(capsys.readouterr().out)
    assert told["documents"] == found.documents and told["found"][0]["places"][0]["trace"] == found.found[0].places[0].command(run.root)


@pytest.mark.parametrize(("text", "sentence"), [("", "is empty"), ("\udcff", "is not UTF-8")])
def test_texts_that_nothing_can_hold(run, text, sentence):
    with pytest.raises(InputError, match=sentence):
        find(run.root, text)


def test_a_run_without_tokens(make_run, make_documents, english):
    run = make_run([make_documents(english[:3])])
    with pytest.raises(InputError, match="no token shards"):
        find(run.root, "the")


def test_the_commands(corpusmill, run):
    """The `trace` command that `find` prints works, with `--json` and without."""
    code, out, err = corpusmill("tokens", "find", run.root, "naïve 🙂", "--json")
    assert (code, err) == (0, "")
    command = json.loads(out)["found"][0]["places"][0]["trace"]
    code, out, _ = corpusmill(*shlex.split(command)[1:], "--json")
    assert code == 0 and json.loads(out)["text"]["after"].startswith("aïve 🙂 naïve") and json.loads(out)["text"]["before"] == ""
    code, out, _ = corpusmill(*shlex.split(command)[1:])
    assert code == 0 and "⟦n⟧aïve 🙂 naïve".encode() in out
    assert b"Documents that hold this text: 1. Occurrences: 200." in corpusmill("tokens", "find", run.root, "naïve 🙂")[1]
