"""Tests reservations and licences: robots.txt against Google's published cases, and a crawl with every signal, through the stages."""

import io
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from inline_run import run_inline
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill.filters.rights import PRESETS, SiteRules
from corpusmill.ingest.rights import page_rights, spdx
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.report.card.data_card import write_card
from corpusmill.report.card.eu import write_summary
from corpusmill.report.page.html import render
from corpusmill.report.queries.summary import read_summary

# ---- robots.txt ----------------------------------------------------------------------------------------------

FOO, STAR, BAR = "user-agent: FooBot\n", "user-agent: *\n", "user-agent: BarBot\n"
#: Google's cases (google/robotstxt, robots_test.cc, those named ID_): the file, and by path whether FooBot may fetch it.
GOOGLE = [
    (f"{FOO}disallow: /\n", {"/x/y": False}),
    ("foo: FooBot\nbar: /\n", {"/x/y": True}),
    (f"allow: /foo/bar/\n\n{FOO}disallow: /\nallow: /x/\n{BAR}disallow: /\nallow: /y/\n\n\nallow: /w/\n"
     f"user-agent: BazBot\n\n{FOO}allow: /z/\ndisallow: /\n", {"/x/b": True, "/z/d": True, "/y/c": False, "/foo/bar/": False}),
    ("USER-AGENT: FooBot\nALLOW: /x/\nDISALLOW: /\n", {"/x/y": True, "/a/b": False}),
    ("uSeR-aGeNt: fOObOT\nAlLoW: /x/\ndIsAlLoW: /\n", {"/x/y": True, "/a/b": False}),
    ("", {"/x/y": True}),
    (f"{STAR}allow: /\n{FOO}disallow: /\n", {"/x/y": False}),
    (f"{BAR}disallow: /\nuser-agent: BazBot\ndisallow: /\n", {"/x/y": True}),
    (f"{FOO}disallow: /X/\n", {"/x/y": True}),
    (f"{FOO}disallow: /x/page.html\nallow: /x/\n", {"/x/page.html": False}),
    (f"{FOO}allow: /x/page.html\ndisallow: /x/\n", {"/x/page.html": True, "/x/": False}),
    (f"{FOO}disallow: \nallow: \n", {"/x/page.html": True}),
    (f"{FOO}disallow: /\nallow: /\n", {"/x/page.html": True}),
    (f"{FOO}disallow: /x\nallow: /x/\n", {"/x": False, "/x/": True}),
    (f"{FOO}allow: /page\ndisallow: /*.html\n", {"/page.html": False, "/page": True}),
    (f"{FOO}allow: /x/page.\ndisallow: /*.html\n", {"/x/page.html": True, "/x/y.html": False}),
    (f"{STAR}Disallow: /x/\n{FOO}Disallow: /y/\n", {"/x/page": True, "/y/page": False}),
    (f"{FOO}Disallow: /\nAllow: /foo/bar?qux=taz&baz=http://foo.bar?tar&par\n", {"/foo/bar?qux=taz&baz=http://foo.bar?tar&par": True}),
    (f"{FOO}Disallow: /\nAllow: /foo/bar/ツ\n", {"/foo/bar/%E3%83%84": True}),
    (f"{FOO}Disallow: /\nAllow: /foo/bar/%E3%83%84\n", {"/foo/bar/%E3%83%84": True}),
    (f"{FOO}Disallow: /foo/bar/quz\nAllow: /foo/*/qux\n", {"/foo/bar/quz": False, "/foo/quz": True, "/foo//quz": True}),
    (f"{FOO}Disallow: /foo/bar$\nAllow: /foo/bar/qux\n", {"/foo/bar": False, "/foo/bar/qux": True, "/foo/bar/": True}),
    (f"{FOO}# Disallow: /\nDisallow: /foo/quz#qux\nAllow: /\n", {"/foo/bar": True, "/foo/quz": False}),
    (f"{FOO}disallow: /\nallow: /*.php$\n".replace("\n", "\r\n"), {"/filename.php": True, "/filename.php?p": False, "/php/": False}),
]  # fmt: skip


def site(**files: str) -> SiteRules:
    return SiteRules({name.replace("_", "."): {"status": 200, "body": body} for name, body in files.items()})


@pytest.mark.parametrize("robots, allowed", GOOGLE)
def test_robots_txt_is_read_as_google_reads_it(robots: str, allowed: dict[str, bool]) -> None:
    for path, may in allowed.items():
        barred, _ = site(robots_txt=robots).barred(f"http://foo.bar{path}", ("foobot",))
        assert (barred == []) is may, path


@pytest.mark.parametrize(
    "robots, barred, named",
    [
        (f"{STAR}Disallow: /p/\n", ["ccbot", "gptbot"], []),  # any crawler: no reservation for the purpose
        (f"{STAR}Disallow: /\nUser-agent: CCBot\nAllow: /\n", ["gptbot"], []),
        ("User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /p\n", ["ccbot", "gptbot"], ["ccbot", "gptbot"]),
        (f"{STAR}Content-Signal: search=yes, ai-train=no\nAllow: /\n", ["ccbot", "gptbot"], ["ccbot", "gptbot"]),  # Cloudflare's
        (f"{STAR}Content-Usage: train-ai=n\nAllow: /\n", ["ccbot", "gptbot"], ["ccbot", "gptbot"]),  # IETF's AIPREF
        (f"{STAR}Content-Usage: /other/ train-ai=n\nContent-Usage: train-ai=y\n", [], []),
        ("<!doctype html><title>Not found</title>User-agent: *", [], []),
    ],
)
def test_a_purpose_is_told_from_rules_for_all_crawlers(robots: str, barred: list[str], named: list[str]) -> None:
    assert site(robots_txt=robots).barred("https://a.test/p/1", ("ccbot", "gptbot")) == (barred, named)


def test_the_first_rule_of_tdmrep_that_matches_decides() -> None:
    rules = [
        {"location": "/a/free/*.html", "tdm-reservation": 0}, {"location": "/a/", "tdm-reservation": 1},
        {"location": "/exact$", "tdm-reservation": 1}, {"location": 5, "tdm-reservation": 1}, "no rule",
    ]  # fmt: skip
    found = site(**{"tdmrep_json": json.dumps(rules)})
    reserved = {path: found.mining(f"https://a.test{path}") for path in ("/a/x", "/a/free/x.html", "/exact", "/exact/not", "/b")}
    assert reserved == {"/a/x": "/a/", "/a/free/x.html": None, "/exact": "/exact$", "/exact/not": None, "/b": None}
    assert [site(tdmrep_json=text).mining("https://a.test/") for text in ("[", "{}", "<html>", "")] == [None] * 4


# ---- pages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header, markup, signals, licence",
    [
        ({"x-robots-tag": "noindex, noai"}, "", ["noai"], None),
        ({"x-robots-tag": "CCBot: none, otherbot: noindex"}, "", ["noai"], None),
        ({"x-robots-tag": "noindex, nofollow"}, '<meta name=robots content="noindex">', [], None),
        ({}, "<META CONTENT='NOIMAGEAI, NoAI' NAME=Robots>", ["noimageai", "noai"], None),
        ({}, '<meta name="GPTBot" content="noindex">', ["noai"], None),
        ({}, '<!-- <meta name="robots" content="noai"> --><script>\'<meta name="robots" content="noai">\'</script>', [], None),
        ({"tdm-reservation": "1", "tdm-policy": "https://a.test/p"}, "", ["tdm-reservation", "tdm-policy"], None),
        ({"content-usage": "train-ai=n"}, "", ["train-ai"], None),
        ({}, '<a rel="license noopener" href="https://creativecommons.org/licenses/by-sa/4.0/deed.de">x</a>', ["license"], "CC-BY-SA-4.0"),
        ({}, '<a property="dct:license" href="http://creativecommons.org/licenses/by-nc/3.0/us/">', ["license"], "CC-BY-NC-3.0-US"),
        ({}, '<script type="application/ld+json">{"license": ["https://creativecommons.org/publicdomain/zero/1.0/"]}</script>', ["license"],
         "CC0-1.0"),
        ({}, '<div id=x><a href="https://creativecommons.org/licenses/by/4.0/">the picture</a></div>', [], None),
        ({}, '<div class="site-footer"><a href="https://creativecommons.org/licenses/by/4.0/">CC</a></div>', ["license"], "CC-BY-4.0"),
        ({}, '<link rel=license href="/own"><a rel=license href="https://creativecommons.org/licenses/by/4.0/">', ["license"] * 2, None),
        ({}, "<p>The license is in the file license.txt.</p>", [], None),
    ],
)  # fmt: skip
def test_signals_of_a_page(header: dict[str, str], markup: str, signals: list[str], licence: str | None) -> None:
    found, named = page_rights(header, f"<html><head></head><body>{markup}<p>text</body></html>".encode())
    assert ([signal.signal for signal in found], named) == (signals, licence)


def test_names_of_licences() -> None:
    assert spdx("https://creativecommons.org/licenses/by-nc-nd/2.0/uk/legalcode") == "CC-BY-NC-ND-2.0-UK"
    assert (spdx("https://www.gnu.org/licenses/fdl-1.3.html"), spdx("CC-BY-4.0"), spdx("all rights reserved")) == (
        "GFDL-1.3-or-later", "CC-BY-4.0", None,
    )  # fmt: skip


# ---- a crawl -------------------------------------------------------------------------------------------------

TEXT = (
    "<html><head>{head}</head><body><main><h1>A page of {name}</h1>"
    + "<p>It has a sentence, and some more words.</p>" * 5
    + "</main></body></html>"
)
PLAIN = [("Content-Type", "text/plain")]
TDMREP, RESERVED = "/.well-known/tdmrep.json", '[{"location": "/", "tdm-reservation": 1}]'
BY = '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
#: By host: the head and the header of its page, and answers for the files of the site.
CRAWL: dict[str, tuple[str, dict[str, str], dict[str, tuple[str, str]]]] = {
    "free.test": ("", {}, {}),
    "open.test": (BY, {}, {"/robots.txt": ("200 OK", "User-agent: *\nDisallow: /private\n")}),
    "noncommercial.test": (BY.replace("/by/", "/by-nc/"), {}, {}),
    "noai.test": ("", {"X-Robots-Tag": "noai"}, {}),
    "meta.test": (BY + '<meta name="robots" content="noai, noimageai">', {}, {}),
    "tdm.test": ("", {"tdm-reservation": "1"}, {}),
    "overruled.test": ('<meta name="tdm-reservation" content="0">', {"tdm-reservation": "1"}, {}),
    "tdmfile.test": ("", {}, {TDMREP: ("200 OK", RESERVED)}),
    "headerwins.test": (
        "",
        {"tdm-reservation": "0"},
        {"/.well-known/tdmrep.json": ("200 OK", '[{"location": "/", "tdm-reservation": 1}]')},
    ),
    "named.test": ("", {}, {"/robots.txt": ("200 OK", "\ufeffUser-agent: GPTBot\nDisallow: /\n")}),
    "anyone.test": ("", {}, {"/robots.txt": ("200 OK", "User-agent: *\nDisallow: /page\n")}),
    "down.test": ("", {}, {"/robots.txt": ("503 Service Unavailable", "")}),
    "gone.test": ("", {}, {"/robots.txt": ("404 Not Found", "User-agent: *\nDisallow: /\n")}),
    "moved.test": ("", {}, {"/robots.txt": ("301 Moved", "https://named.test/robots.txt")}),
    "html.test": ("", {}, {"/robots.txt": ("200 OK", "<html><body>User-agent: * is what we never wrote</body></html>")}),
    "large.test": ("", {}, {"/robots.txt": ("200 OK", "# a comment\n" * 50_000 + "User-agent: GPTBot\nDisallow: /\n")}),
    "aitxt.test": ("", {}, {"/ai.txt": ("200 OK", "User-Agent: *\nDisallow: *.txt\nAllow: *.jpg\n")}),
    "port.test:8080": ("", {}, {}),
    "port.test": ("", {}, {"/robots.txt": ("200 OK", "User-agent: CCBot\nDisallow: /\n")}),
    "sub.listed.test": ("", {}, {}),
    "notlisted.test": ("", {}, {}),
}
PURPOSE = {"noai.test", "meta.test", "tdm.test", "tdmfile.test", "named.test", "moved.test", "aitxt.test", "port.test", "sub.listed.test"}
DROPPED = {
    "eu-tdm": PURPOSE,
    "strict": PURPOSE | {"anyone.test", "down.test"},
    "licensed-only": CRAWL.keys() - {"open.test"},
}


def write_crawl(path: Path, answers: list[tuple[str, str, list[tuple[str, str]], bytes]]) -> None:
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for url, status, fields, body in answers:
            http = StatusAndHeaders(status, fields, protocol="HTTP/1.1")
            headers = {"WARC-Date": "2026-05-01T00:00:00Z"}
            writer.write_record(
                writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=http, warc_headers_dict=headers)
            )


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Writes the pages, and the files of their sites in an archive of their own, as Common Crawl does."""
    folder, pages, files = tmp_path_factory.mktemp("crawl"), [], []
    for host, (head, header, of_site) in CRAWL.items():
        fields = [("Content-Type", "text/html; charset=utf-8"), *header.items()]
        pages.append((f"https://{host}/page", "200 OK", fields, TEXT.format(head=head, name=host).encode()))
        for path, (status, body) in of_site.items():
            moved = [("Location", body)] if status.startswith("3") else []
            files.append((f"https://{host}{path}", status, [*PLAIN, *moved], b"" if moved else body.encode()))
    for name, answers in (("pages", pages), ("robotstxt", files)):
        write_crawl(folder / f"{name}.warc.gz", answers)
    return [folder / "pages.warc.gz", folder / "robotstxt.warc.gz"]


@pytest.mark.parametrize("preset", PRESETS)
def test_each_site_gets_the_verdict_of_its_signals(crawl: list[Path], tmp_path: Path, preset: str) -> None:
    recipe = f"ingest: {{}}\nfilter: {{steps: [rights: {{preset: {preset}, domains: [Listed.test]}}]}}\n"
    run = run_inline(tmp_path, recipe, *crawl)
    rows = pq.read_table(run / "filter/report").to_pylist()
    hosts = {row["url"].removeprefix("https://").removesuffix("/page"): row for row in rows}
    assert {host for host, row in hosts.items() if not row["kept"]} == DROPPED[preset] and len(hosts) == len(CRAWL)
    evidence = {host: row["reason"] for host, row in hosts.items() if row["reason"]}
    assert evidence["noai.test"] == "X-Robots-Tag: noai"
    assert evidence["tdmfile.test"] == "tdmrep.json (2026-05-01): / is reserved"
    assert evidence["named.test"] == evidence["moved.test"] == "robots.txt (2026-05-01): not for gptbot"
    assert {host: row["license"] for host, row in hosts.items() if row["license"]} == {
        "open.test": "CC-BY-4.0", "meta.test": "CC-BY-4.0", "noncommercial.test": "CC-BY-NC-4.0",
    }  # fmt: skip
    summary = read_summary(str(run))
    assert summary.page.rights is not None
    for signal in summary.page.rights.rows:
        of = [host for host, row in hosts.items() if row[signal["signal"]] > 0]
        assert (signal["documents"], signal["hosts"], signal["kept"]) == (
            len(of), len({host.partition(":")[0] for host in of}), sum(hosts[host]["kept"] for host in of),
        )  # fmt: skip
    assert "Reservations and licences" in render(summary) and "<summary>Licence" in render(summary)
    card = Path(write_card(str(run))).read_text()
    licences = Counter(row["license"] or "(none)" for row in rows if row["kept"])
    for name, count in licences.items():
        assert re.search(rf"^\| `?{re.escape(name)}`? \| {count} \|", card, re.MULTILINE), (name, card)
    kept = [row["signal"] for row in summary.page.rights.rows if row["kept"]]
    assert all(f"| `{name}` |" in card for name in kept) and ("### Reservations" in card) == bool(kept)


def test_the_summary_for_the_eu_has_the_figures_of_the_run(crawl: list[Path], tmp_path: Path) -> None:
    run = run_inline(tmp_path, "ingest: {}\nfilter: {steps: [rights: {domains: [listed.test]}]}\n", *crawl)
    text = Path(write_summary(str(run))).read_text()
    kept = pq.read_table(run / "filter/data").to_pylist()
    sizes: Counter[str] = Counter()
    for row in kept:
        sizes[row["url"].split("/")[2].partition(":")[0]] += len(row["text"])
    ((most, characters),) = sizes.most_common(1)
    assert f"| Domains | {len(sizes)} |" in text and "The domain with the most text (10% of all domains)" in text
    assert f"| {most} | 1 | {characters} | {characters / sum(sizes.values()):.1%} |" in text
    assert f"{sum(sizes.values()):,} characters in {len(kept)} documents" in text and "2026-05-01 to 2026-05-01" in text
    report = pq.read_table(run / "filter/report").to_pylist()
    named = [row for row in report if row["rights_robots"]]
    assert f"| `rights_robots` | {len(named)} | {len(named)} | 0 |" in text
    assert "| Provider, and authorised representative | *to be added" in text
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusmillError, match="kept"):  # the files of sites are no documents
        write_summary(str(run_inline(tmp_path / "empty", "ingest: {}\n", crawl[1])))


def test_a_crawl_without_files_of_sites_says_so(crawl: list[Path], tmp_path: Path) -> None:
    run = run_inline(tmp_path, "ingest: {}\nfilter: {steps: [rights: {}]}\n", crawl[0])
    assert "the crawl has no robots.txt" in " ".join(read_summary(str(run)).warnings)
