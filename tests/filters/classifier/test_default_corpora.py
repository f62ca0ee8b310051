"""What is made of mails, wikitext, tagged text and word lists, on small samples."""

import bz2
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from corpusmill.filters import bad_words as word_lists
from corpusmill.filters.classifier.corpora import CORPORA, Corpus, corpus_path, listed
from corpusmill.filters.classifier.corpus_texts import article_text, articles, brown_text, mail_text, unwrapped
from corpusmill.pipeline.errors import InputError

MAIL = b"""From someone@somewhere Mon Aug 26 2002
Received: from list.test
Subject: buy now
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

=20
--inner
Content-Type: text/html; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

<html><head><style>p {color: red}</style></head><body><p>Caf=E9 pills &amp;
more<p>Order <b>today</b>!</body></html>
--inner--
--outer
Content-Type: text/plain
Content-Disposition: attachment; filename=x.txt

not of the letter
--outer
Content-Type: message/rfc822

Subject: another

a mail that is passed on
--outer--
"""


def test_a_mail_with_html() -> None:
    assert mail_text(MAIL) == "Café pills & more\n\nOrder today!"


def test_a_reply() -> None:
    body = "On Monday, Ann wrote:\n> quoted\n>> twice\nMy answer.\n\n-- \nBen\nhttp://ben.test\n"
    assert mail_text(b"Subject: Re\nFrom: x@y\n\n" + body.encode()) == "My answer."
    assert mail_text(b"Subject: none\n\n") == ""


def test_lines_that_a_mail_program_broke() -> None:
    wrapped = "It is a truth universally acknowledged, that a single man in\npossession of a good fortune, must be in want of a wife.\n\n"
    wrapped += "Short\nlines\n- item"
    assert unwrapped(wrapped.split("\n")) == wrapped.replace("man in\n", "man in ")
    assert unwrapped(["a" * 30, "b"] * 3) == "\n".join(["a" * 30, "b"] * 3)


def test_an_article() -> None:
    prose = (
        "The '''mill''' turns [[grain|corn]] into [[flour]]s{{citation needed}}<ref>Note</ref> and has done so for a very long time indeed."
    )
    text = f"{{{{Infobox\n|a=b}}}}\n[[File:x.jpg|thumb|A caption [[with]] a link]]\n{prose}\n== History ==\n* item\n{prose}\n"
    text += f"{{| class=x\n|-\n| cell\n|}}\n== References ==\n{prose}"
    plain = "The mill turns corn into flours and has done so for a very long time indeed."
    assert article_text(text.replace("very long", "very, very long")).split("\n\n") == [plain.replace("very long", "very, very long")] * 2


def test_a_dump() -> None:
    page = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"
    body = "Long enough to be prose. " * 5
    pages = [
        ("A", 0, "", body),
        ("B", 0, '<redirect title="A"/>', body),
        ("Talk:A", 1, "", body),
        ("C", 0, "", "short"),
        ("D &amp; E", 0, "", body),
    ]
    dump = f"<mediawiki xmlns='http://x'>{''.join(page.format(*fields) for fields in pages)}</mediawiki>"
    assert list(articles(bz2.compress(dump.encode()))) == [("A", body.strip()), ("D & E", body.strip())]


def test_tagged_text() -> None:
    tagged = "\n\n\tThe/at jury/nn said/vbd ``/`` no/at ''/'' ,/, and/or/cc (/( so/rb )/) on/in ./.\n\n\n\tNext/ap ./.\n"
    assert brown_text(tagged) == 'The jury said "no", and/or (so) on.\n\nNext.'


def test_listed_words() -> None:
    found = listed(["a Damn thing", "crap-damn", "undamned", "", "heck"], {"damn"}, {"heck", "crap"})
    assert found.tolist() == [2, 2, 0, 0, 1]
    assert found.dtype == np.int64


def test_an_unknown_corpus() -> None:
    with pytest.raises(InputError, match=r"^package://x\.jsonl: there is no such corpus \(there are mails-1\.jsonl, "):
        corpus_path("x.jsonl")
    assert len({corpus.name for corpus in CORPORA.values()}) == len(CORPORA)


def made(place: str) -> str:
    import os

    os.environ["CORPUSMILL_CACHE"] = f"{place}/cache"

    def rows():
        with open(f"{place}/calls", "a") as calls:
            calls.write("x")
        yield {"text": "é", "n": 1}

    return str(Corpus("some.jsonl", rows, (), ("brown.py",)).path())


def test_a_corpus_is_made_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        paths = set(pool.map(made, [str(tmp_path)] * 8, chunksize=1))
    assert len(paths) == 1 and (tmp_path / "calls").read_text() == "x"
    assert Path(paths.pop()).read_text("utf-8") == '{"n": 1, "text": "é"}\n'


def test_the_packages_word_lists(shared_data: Path) -> None:
    try:
        lists, rated = word_lists.ldnoobw(), word_lists.cuss()
    except InputError as error:
        pytest.skip(str(error))
    folder = shared_data / "toxicity" / "ldnoobw"
    names = [path.name for path in folder.iterdir() if "." not in path.name and path.name != "LICENSE"]
    assert sorted(lists) == sorted(names) and len(names) == 28
    for name in names:
        assert {word.strip() for word in lists[name]} == {line.strip() for line in (folder / name).read_text("utf-8").split("\n")} - {""}
    assert len(rated) == 1795 and set(rated.values()) == {0, 1, 2}
    sure, unsure = word_lists.english()
    assert not sure & unsure and sure | unsure >= {word.lower() for word in rated}
