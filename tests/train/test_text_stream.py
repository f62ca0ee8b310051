"""Text that streams: whole characters, stop strings across tokens, nothing that drives a terminal."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import TEXT, byte_tokenizer
from tokenizers import Tokenizer, decoders, models

from corpusmill.pipeline.errors import InputError
from corpusmill.train.text_stream import TextStream, json_line, plain, stream_text

TOKENIZER = byte_tokenizer()


class Pieces:
    """A tokenizer whose ids stand for given pieces of text."""

    def __init__(self, pieces: list[str]):
        self.pieces = pieces

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(self.pieces[number] for number in ids)


def written(stream: TextStream, tokens: list[int]) -> list[str]:
    """What is there after each token, and at the end."""
    pieces = []
    for token in tokens:
        pieces.append(stream.add(token))
        if stream.stopped:
            break
    return [*pieces, stream.end()]


def before_first_stop(text: str, stops: list[str]) -> str:
    """Character by character: the text before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - len(max(found, key=len))]
    return text


def test_streamed_text_is_the_text_in_whole_characters() -> None:
    pieces = list(stream_text(TOKENIZER, TOKENIZER.encode(TEXT).ids))
    assert "".join(pieces) == TEXT and not any("\ufffd" in piece for piece in pieces)
    broken = list(stream_text(TOKENIZER, TOKENIZER.encode("🙂").ids[:-1]))
    assert set("".join(broken)) == {"\ufffd"}
    first = TOKENIZER.encode("🙂").ids[0]
    endless = written(TextStream(TOKENIZER), [first] * 20)
    assert "".join(endless) == "\ufffd" * 20 and endless[7] == "\ufffd" * 8  # bytes that are no text are not waited for


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_before_its_first_stop_string_however_tokens_cut_it(pieces: list[str], stops: list[str]) -> None:
    whole = before_first_stop("".join(pieces), stops)
    stream = TextStream(Pieces(pieces), stops)
    given_out = written(stream, list(range(len(pieces))))
    assert "".join(given_out) == whole and stream.stopped == (whole != "".join(pieces))
    assert "".join(stream_text(Pieces(pieces), range(len(pieces)), stops)) == whole


def test_what_may_become_a_stop_string_is_held_back_and_no_more() -> None:
    stream = TextStream(Pieces(["Q: one", "\n", "\nA", "\n", "\n", "Q", ":", "more"]), ["\n\nQ:"])
    assert [stream.add(token) for token in range(7)] == ["Q: one", "", "\n\nA", "", "", "", ""]
    assert stream.stopped and stream.add(7) == "" and stream.end() == ""
    with pytest.raises(InputError, match="can't be empty"):
        TextStream(TOKENIZER, ["x", ""])


def test_tokens_are_read_no_further_than_the_stop_string() -> None:
    read = []

    def tokens():
        for number in range(5):
            read.append(number)
            yield number

    assert "".join(stream_text(Pieces(list("abcde")), tokens(), ["bc"])) == "a" and read == [0, 1, 2]


def test_tokenizers_that_mark_spaces_keep_them() -> None:
    words = ["▁the", "▁cat", "s", "<0xE6>", "<0x9D>", "<0xB1>"]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    ids = [0, 1, 2, 3, 4, 5, 1]
    assert written(TextStream(tokenizer), ids) == ["the", " cat", "s", "", "", "東", " cat", ""]
    assert written(TextStream(tokenizer, before=[1, 2]), [1, 0]) == [" cat", " the", ""]  # it goes on from a word


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    assert plain("a\x1b[31mb\x07\x9b2Jc\r\u202ed\x00\ne\tf\u061c") == "a[31mb2Jcd\ne\tf"
    assert "".join(stream_text(TOKENIZER, TOKENIZER.encode("\x1b]0;title\x07x").ids)) == "]0;titlex"
    hostile = "\x1b[2J\x9b\u202e\r\n東京 \ud83d"
    line = json_line({"text": hostile})
    assert plain(line) == line and "\n" not in line and json.loads(line) == {"text": hostile}
