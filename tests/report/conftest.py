"""Makes a small run with known decisions, and a larger one with random decisions."""

from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from built_run import HOSTILE, write_run
from inline_run import run_inline
from random_run import write_random_run
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder)
    return folder


@pytest.fixture(scope="session")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "run"
    write_random_run(folder)
    return folder


@pytest.fixture(scope="session")
def builder() -> Any:
    return write_run


STEMS = ("mill", "grain", "stone", "wheel", "river", "corn", "bread", "oven", "sack", "cart")
WORDS = [f"{stem}{end}" for stem in STEMS for end in ("ing", "er", "work", "side", "ward", "house", "way", "yard")]
PROSE = [f"So the {' '.join(WORDS[at : at + 8])} of it." for at in range(0, len(WORDS), 8)]
MARKED_PAGES = {
    "repeats": [
        HOSTILE,
        *["The miller of the river ground the corn. \U0001f600 and\u202e more."] * 4,
        "no end mark",
        "{",
        "a { bracket ends.",
    ],
    "mail": [*PROSE[:6], "Write to anna@firma.de about it.", "Short.", "Two damns, damn it, for the miller."],
    "first": [*PROSE, "Only here."],
    "second": [*PROSE, "This is more of it."],
}
MARKED = """
ingest: {{extraction: {{main_content: false}}}}
filter:
  word_rule: words
  steps:
    - gopher_repetition: {{}}
    - gopher_quality: {{}}
    - c4: {{preset: fineweb}}
    - fineweb_quality: {{}}
    - pii: {{most: {{email: 0}}}}
    - bad_words: {{lists: {folder}, language: en}}
dedup: {{threshold: 0.6}}
"""


@pytest.fixture(scope="session")
def marked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run of four pages by real steps: http://NAME.test/ for each of `MARKED_PAGES`. `second` is a copy of `first`."""
    folder = tmp_path_factory.mktemp("marked")
    (folder / "lists").mkdir()
    (folder / "lists" / "en").write_text("damn\ndamns\n")
    with (folder / "pages.warc").open("wb") as file:
        writer = WARCWriter(file, gzip=False)
        for name, lines in MARKED_PAGES.items():
            html = "".join(f"<p>{escape(line)}</p>" for line in lines)
            http = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            payload = BytesIO(f"<html><body><nav>menu</nav>{html}</body></html>".encode())
            record = writer.create_warc_record(f"http://{name}.test/", "response", payload=payload, http_headers=http)
            writer.write_record(record)
    return run_inline(folder, MARKED.format(folder=folder / "lists"), folder / "pages.warc")
