"""Reads pages with known main text, and measures how well a text agrees with it. Used by `extraction.py` and `fit_extraction.py`.

A folder holds, for each of four public sets, a WARC of the pages and a JSONL of the expected text:

    scrapinghub.warc.gz, scrapinghub_gold.jsonl        url, text: the whole article (article-extraction-benchmark)
    readability.warc.gz, readability_gold.jsonl.gz     url, expected_html (Mozilla's Readability)
    trafilatura.warc.gz, trafilatura_gold.jsonl        page_url, with, without: segments that must (not) be there
    wcxb_dev.warc.gz, wcxb_dev_gold.jsonl.gz           url, type, text, with, without, title, author, date (WCXB's development set)
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from corpusmill.ingest.html.page_type import TYPES

SETS = ("scrapinghub", "readability", "trafilatura", "wcxb_dev")
WORD = re.compile(r"\w+")


@dataclass
class GoldPage:
    """One page: either its whole main text `text` is known, or segments `required` and `forbidden`."""

    set: str
    url: str
    site: str  # a split never has pages of one site on both sides
    body: bytes
    html: str
    text: str | None = None
    required: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    type: str = "article"
    title: str | None = None
    author: str | None = None
    date: str | None = None


def load(folder: Path) -> list[GoldPage]:
    return [page for name in SETS for page in _load_set(folder, name)]


def _load_set(folder: Path, name: str) -> list[GoldPage]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    path = next(folder.glob(f"{name}_gold.jsonl*"))
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as lines:
        given = [json.loads(line) for line in lines]
    rows = {address: row for row in given for address in (row["url"], row.get("page_url"))}
    pages = []
    with open(folder / f"{name}.warc.gz", "rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            url, body = record.headers["WARC-Target-URI"], record.reader.read()
            row = rows[url]
            page = GoldPage(name, url, _site(name, row["url"]), body, bytes_to_str(body, detect_encoding(body, from_html_meta=True)))
            page.required, page.forbidden = row.get("with", []), row.get("without", [])
            if name == "wcxb_dev":
                page.type, page.title, page.author, page.date = row["type"], row["title"], row["author"], row["date"]
            if name != "trafilatura":
                page.text = _text_of(row["expected_html"]) if name == "readability" else row["text"]
            pages.append(page)
    return pages


def _site(name: str, url: str) -> str:
    return url if name == "readability" else urlsplit(url if "://" in url else f"http://{url}").netloc  # the set's pages have no hosts


def _text_of(html: str) -> str:
    """Returns all text of an HTML fragment."""
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(html, main_content=False, alt_texts=False, links=False, list_bullets=False, noscript=True)
    return text


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _grams(text: str) -> Counter[tuple[str, ...]]:
    found = words(text)
    return Counter(zip(*(found[i:] for i in range(4)))) if len(found) >= 4 else Counter([tuple(found)] if found else [])


def agreement(text: str, gold: str) -> tuple[float, float, float]:
    """Returns F1, precision and recall of the 4-grams of words, computed as in the article-extraction-benchmark."""
    ours, theirs = _grams(text), _grams(gold)
    if not ours and not theirs:
        return 1.0, 1.0, 1.0
    common = sum((ours & theirs).values())
    precision, recall = common / max(sum(ours.values()), 1), common / max(sum(theirs.values()), 1)
    return (2 * precision * recall / (precision + recall) if common else 0.0), precision, recall


def segments(texts: Iterable[str], pages: Sequence[GoldPage]) -> dict[str, float]:
    """As trafilatura's evaluation: `f1` of the segments, the share of required ones found, the share of forbidden ones left out."""
    found = missed = wrong = right = 0
    for text, page in zip(texts, pages):
        found += sum(segment in text for segment in page.required)
        missed += sum(segment not in text for segment in page.required)
        wrong += sum(segment in text for segment in page.forbidden)
        right += sum(segment not in text for segment in page.forbidden)
    precision, recall = found / max(found + wrong, 1), found / max(found + missed, 1)
    return {"f1": 2 * precision * recall / max(precision + recall, 1e-9), "required": recall, "forbidden": right / max(right + wrong, 1)}


def word_f1(text: str, gold: str) -> tuple[float, float, float]:
    """Returns F1, precision and recall of the words with their counts, as WCXB defines them. An empty text is right for an empty one."""
    ours, theirs = Counter(words(text)), Counter(words(gold))
    if not ours or not theirs:
        return (float(not ours and not theirs),) * 3
    both = (ours & theirs).total()
    precision, recall = both / ours.total(), both / theirs.total()
    return (2 * precision * recall / (precision + recall) if both else 0.0), precision, recall


def share_of(text: str, snippets: Sequence[str]) -> float:
    return sum(snippet.lower() in text.lower() for snippet in snippets) / len(snippets) if snippets else 1.0


def quality_by_type(texts: dict[str, str], pages: Sequence[GoldPage]) -> str:
    """Returns one line on WCXB's pages: the mean word F1 by page type and of all, their snippets, and how many texts are empty."""
    chosen = [page for page in pages if page.set == "wcxb_dev"]
    scores: dict[str, list[float]] = {}
    for page in chosen:
        f1 = word_f1(texts[page.url], page.text or "")[0]
        scores.setdefault(page.type, []).append(f1)
        scores.setdefault("all", []).append(f1)
    wanted = sum(share_of(texts[page.url], page.required) for page in chosen) / max(len(chosen), 1)
    unwanted = sum(share_of(texts[page.url], page.forbidden) for page in chosen) / max(len(chosen), 1)
    empty = sum(bool((page.text or "").strip()) and not texts[page.url].strip() for page in chosen)
    parts = [f"{name} {sum(scores[name]) / len(scores[name]):.4f}" for name in (*TYPES, "all") if name in scores]
    return f"{' '.join(parts)} | with {wanted:.3f} without {unwanted:.3f} empty {empty}"


def quality(texts: dict[str, str], pages: Sequence[GoldPage]) -> str:
    """Returns one line on the other sets; `texts` is keyed by URL."""
    parts = []
    for name in SETS[:3]:
        chosen = [page for page in pages if page.set == name]
        if name == "trafilatura":
            counts = segments((texts[page.url] for page in chosen), chosen)
            parts.append(f"{name} F1 {counts['f1']:.4f} must {counts['required']:.4f} must-not {counts['forbidden']:.4f}")
        else:
            rows = [agreement(texts[page.url], page.text or "") for page in chosen]
            f1, precision, recall = (sum(row[i] for row in rows) / len(rows) for i in range(3))
            parts.append(f"{name} F1 {f1:.4f} P {precision:.4f} R {recall:.4f}")
    return " | ".join(parts)
