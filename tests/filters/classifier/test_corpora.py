"""Tests corpora from packages, and the classifier trained on them."""

import bz2
import hashlib
import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.filters import bad_words as word_lists
from corpusmill.filters.classifier import corpora as contrasts
from corpusmill.filters.classifier import train
from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.corpora import CORPORA, PREFIX
from corpusmill.filters.classifier.corpus_texts import article_text, articles, mail_text, unwrapped
from corpusmill.filters.classifier.options import BUILTIN, builtin, builtin_key
from corpusmill.filters.classifier.score import Scorer
from corpusmill.filters.classifier.spec import FOLDER, read_spec
from corpusmill.pipeline.errors import InputError

# ---- Texts made from mails and wikitext, and words of a package, on small samples.

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


def test_the_package_of_rated_words() -> None:
    try:
        rated = word_lists.cuss()
    except InputError as error:
        pytest.skip(str(error))
    assert len(rated) == 1795 and set(rated.values()) == {0, 1, 2}
    sure, unsure = word_lists.english()
    assert not sure & unsure and sure | unsure >= {word.lower() for word in rated}


# ---- Training sentences for negation and counter speech, and the test cases that measure them: no sentence is in both.

ROOT = Path(__file__).resolve().parents[3]
WORDS = ("xylo", "quux", "zorb")  # in place of listed words


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrasts, "sure_and_unsure", lambda: (frozenset(WORDS), frozenset()))
        return list(contrasts._contrasts())


@pytest.fixture
def functional(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("functional_toxicity", None)
    import functional_toxicity

    return functional_toxicity


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


def test_sentences_are_filled_and_both_answers_come(rows) -> None:
    lists = json.loads(Path(contrasts.__file__).with_name("contrasts.json").read_bytes())
    assert len(rows) == sum(part["sentences"] for part in lists["templates"])
    assert not [row for row in rows if "{" in row["text"] or "}" in row["text"]]
    said = [(row["toxic"], plain(row["text"]).replace("s ", " ").split()) for row in rows]
    for word in ("not", "never", WORDS[0]):  # no word alone gives the answer away
        assert {toxic for toxic, words in said if word in words} == {0, 1}
    assert all(f"{{{name}}}" in str(lists) for name in (*lists["slots"], "word"))


def test_no_functional_case_is_taught(rows, functional) -> None:
    """No case is in the training sentences, whole or by a run of five words, with any group or slur in it."""
    taught = {run for row in rows for run in runs(plain(row["text"]))}
    cases = functional.cases(list(WORDS))
    assert len(cases) > 300 and {case.toxic for case in cases} == {0, 1}
    whole = {plain(row["text"]) for row in rows}
    found = [case.text for case in cases if plain(case.text) in whole or runs(plain(case.text)) & taught]
    assert found == []


def runs(text: str, length: int = 5) -> set[str]:
    words = text.split()
    return {" ".join(words[at : at + length]) for at in range(len(words) - length + 1)}


# ---- The built-in classifier: its spec, and a real training where the packages are available.

#: Texts for each label: positive ones, negative ones.
ASKED = {
    "quality": (
        "The river rises in the mountains of the north and flows through three provinces before it reaches the sea. Its basin was settled "
        "in the ninth century, and the towns along it were founded by merchants who traded in salt and wool.",
        "click here!!! free free free\nunsubscribe\nhttp://x.test/a\nto be removed from this list reply with REMOVE\nCall now toll free",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_specifications_that_ship(name: str) -> None:
    spec = read_spec([name])
    corpora = [file for source in spec.sources for file in source.files if file.startswith(PREFIX)]
    assert spec.name == name and all(file.removeprefix(PREFIX) in CORPORA for file in corpora)
    if name in BUILTIN:
        assert spec.labels == (name,) and all(source.licence for source in spec.sources)
        assert len(corpora) == sum(len(source.files) for source in spec.sources)
        assert spec.ranks and any("weak" in sentence for sentence in spec.limits)
        other = spec.model_copy(update={"seed": 2})
        assert builtin_key(spec) == builtin_key(read_spec([name])) != builtin_key(other)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) for name in BUILTIN])
def test_trained_at_first_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        folder = builtin(name)
    except InputError as error:
        if "can't" not in str(error):
            raise
        pytest.skip(str(error))
    classifier = read_classifier(folder)
    assert [head.label for head in classifier.heads] == [name]
    assert hashlib.sha256((folder / classifier.heads[0].file).read_bytes()).hexdigest() == classifier.heads[0].sha256
    yes, no = Scorer(folder, classifier).score(pa.array(ASKED[name], pa.large_string()))[0]
    assert yes > 0.5 > no
    monkeypatch.setattr(train, "train_classifier", None)  # it is not trained twice
    assert builtin(name) == folder
