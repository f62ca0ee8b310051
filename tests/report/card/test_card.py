"""Tests the data card: numbers with queries, read back by the hub's library, and harmless."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from built_run import HOSTILE, RULES, RunBuilder, pages, write_run
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.card.contents import iso_codes
from corpusmill.report.card.data_card import MARK, shown_sentence, write_card
from corpusmill.report.markdown import code, escaped, front_matter
from corpusmill.report.page.html import write_report

MARKDOWN = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Makes the known run with an additional filter step for personal data."""
    folder = tmp_path_factory.mktemp("card") / "run"
    builder = write_run(folder, ("ingest", "filter", "dedup", "tokens"))
    recipe = {
        "ingest": {"url_filter": {"preset": "corpusmill", "shipped_lists": True, "domains": ["lists/mine.txt"]}},
        "filter": {"steps": [{"language": {"threshold": 0.65, "model": None}}, {"pii": {"email": None, "phone": "<PHONE>"}}]},
        "dedup": {"threshold": 0.8, "keep": "longest", "similarity": "jaccard", "verification": "exact",
                  "contamination": {"sets": ["a|b.jsonl"]},
                  "minhash": {"enabled": True, "ngram": 5, "unit": "words", "bands": 14, "rows": 8}},
    }  # fmt: skip
    builder.json("run.json", {"inputs": ["crawl/it's one.warc.gz"], "recipe": recipe, "versions": {"corpusmill": "0.1.0", "numpy": "2"}})
    return folder


@pytest.fixture(scope="module")
def card(run) -> str:
    write_card(str(run))
    return (run / "README.md").read_text()


@pytest.fixture(scope="module")
def sql(run) -> Any:
    """Returns rows of a query in which `STAGE.KIND` stands for the files of a stage's table."""
    connection = duckdb.connect(":memory:")

    def ask(query: str) -> list[tuple[Any, ...]]:
        return connection.sql(re.sub(r"\b(\w+)\.(data|report)\b", rf"read_parquet('{run}/\1/\2/*.parquet')", query)).fetchall()

    return ask


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """Returns the body rows of each table as texts, by the text of its first head cell, as a Markdown renderer sees them."""
    found: dict[str, list[list[str]]] = {}
    body, row, name = [], [], ""
    for token in MARKDOWN.parse(markdown):
        if token.type == "inline" and token.level >= 4:
            row.append("".join(child.content for child in token.children or []))
        elif token.type == "tr_open":
            row = []
        elif token.type == "thead_close":
            name, body = row[0], []
            found[name] = body
        elif token.type == "tr_close" and name:
            body.append(row)
        elif token.type == "table_close":
            name = ""
    return found


def count(number: int) -> str:
    return f"{number:,}"


def test_numbers_are_those_of_queries(card, sql, run) -> None:
    told = tables(card)
    assert [row[:4] for row in told["stage"]][:3] == [
        [stage, *map(count, sql(f"select count(*), count(*) filter (kept), count(*) filter (not kept) from {stage}.report")[0])]
        for stage in ("ingest", "filter", "dedup")
    ]
    assert [row[5] for row in told["stage"]][:3] == [
        count(sql(f"select sum(chars_out) from {s}.report")[0][0]) for s in ("ingest", "filter", "dedup")
    ]
    hosts = sql(r"select coalesce(regexp_extract(url, '://([^/]+)', 1), ''), count(*) from dedup.data group by 1 order by 2 desc, 1")
    assert [row[:2] for row in told["host"]] == [[host, count(number)] for host, number in hosts]
    read = "(select count(*) from ingest.report r where r.source = d.source)"
    sources = sql(f"select source, {read}, count(*) n from dedup.data d group by 1 order by 3 desc, 1")
    assert told["crawl file"] == [[source, count(read), count(left)] for source, read, left in sources]
    languages = sql("select language, count(*) from dedup.data group by 1 order by 2 desc")
    assert [row[:2] for row in told["language"]] == [[language, count(number)] for language, number in languages]
    first, last = sql("select min(timestamp)[:10], max(timestamp)[:10] from dedup.data")[0]
    assert first == last and f"records are of {first}." in card
    shards = json.loads((run / "tokens/train/shards.json").read_text())
    assert told["split"][0] == ["train", count(shards["documents"]), count(shards["tokens"]), count(shards["utf8_bytes"])]


def test_rules_have_their_thresholds_and_what_each_removed(card, sql) -> None:
    fired = sql("select unnest(failed) rule, count(*), count(*) filter (len(failed) = 1) from filter.report group by 1 order by 2 desc, 1")
    thresholds = {rule["rule"]: f"{rule['column']} {rule['comparison']} {rule['threshold']}" for rule in RULES}
    rows = [row for row in tables(card)["rule"] if row[0] in thresholds]
    shown = [(row[0], row[1], int(row[2]), int(row[4])) for row in rows]
    assert sorted(shown) == sorted((rule, thresholds[rule], number, alone) for rule, number, alone in fired) and len(shown) == 3
    assert "never fired: `never` (words \\> 100,000)" in card


def test_deduplication_and_limits(card) -> None:
    pairs = dict(_pairs(card))
    assert pairs["copies removed, near"].startswith("3 (") and pairs["kept of a group"] == "the longest text"
    assert (
        pairs["near means"] == "jaccard similarity of 0.8 or more on shingles of 5 words"
        and pairs["known to be copies by"] == "exact_jaccard 3"
    )
    assert pairs["further lists: domains"] == "mine.txt"
    assert "Found, counted, and left as they were" not in card  # this report has no search for any kind
    assert "Languages were judged by fastText's lid.176 (a score above 0.65 was asked for)" in card
    assert "searched for the items of `a\\|b.jsonl`" in card and "Nothing was done against offensive text" in card
    assert "corpusmill run recipe.yaml 'crawl/it'\"'\"'s one.warc.gz' --output RUN --to dedup" in card


def _pairs(card: str) -> list[list[str]]:
    """Returns the rows of tables of two columns."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", card, re.M)
    return [[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in rows]


def test_the_hub_reads_the_header(card) -> None:
    read = DatasetCard(card)
    assert read.data.pretty_name == "run" and read.data.license == "other" and read.data.language == ["en", "de"]
    assert read.data.size_categories == ["n<1K"] and read.data.task_categories == ["text-generation"]
    (config,) = read.data.to_dict()["configs"]
    assert config["data_files"] == [{"split": "train", "path": "dedup/data/*.parquet"}]
    assert "Nobody has said under which licence" in read.text


def test_personal_data_by_kind(tmp_path) -> None:
    builder = RunBuilder(tmp_path / "run")
    rows = [
        {**row, "failed": ["odd"] * (row["number"] % 2), "pii_emails": row["number"] % 3, "pii_phones": row["number"]} for row in pages()
    ]
    kept = builder.decide("filter", [rows], [pa.field(name, pa.int64()) for name in ("pii_emails", "pii_phones")])
    builder.json("run.json", {"recipe": {"filter": {"steps": [{"pii": {"email": None, "phone": "<PHONE>"}}]}}})
    write_card(str(builder.folder))
    card = (builder.folder / "README.md").read_text()
    assert tables(card)["kind"] == [
        [
            "an email address",
            *(count(sum(r["pii_emails"] for r in some)) for some in (rows, kept)),
            count(sum(r["pii_emails"] > 0 for r in kept)),
            "left as it was",
        ],
        [
            "a phone number",
            *(count(sum(r["pii_phones"] for r in some)) for some in (rows, kept)),
            count(sum(r["pii_phones"] > 0 for r in kept)),
            "<PHONE>",
        ],
    ]
    assert "Found, counted, and left as they were: emails." in card and "Copies of the same text were not removed." in card


def test_hostile_names_are_text(run, tmp_path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shard = tmp_path / "run/dedup/data/part-00000.parquet"
    table = pq.read_table(shard)
    hostile = [
        f"{HOSTILE}|`x`\n---\nlicense: mit\n# big [a](javascript:alert(1))",
        "http://a|b<script>`$(x)`/",
        *["http://plain.test/"] * (table.num_rows - 2),
    ]
    for column in ("source", "url", "language"):
        table = table.set_column(table.column_names.index(column), column, pa.array(hostile))
    pq.write_table(table, shard)
    write_card(str(tmp_path / "run"), name=f"{HOSTILE}\n---\nx: [", licence="mit")
    card = (tmp_path / "run/README.md").read_text()
    read = DatasetCard(card)
    assert read.data.license == "mit" and read.data.language is None and "\n" not in read.data.pretty_name
    html = MARKDOWN.render(read.text)
    own = (
        html.replace(MARK, "").replace("<details><summary>recipe.yaml, with all defaults filled in</summary>", "").replace("</details>", "")
    )
    tags = set(re.findall(r"<(/?\w+)", own))
    assert not {"script", "img", "a", "h4"} & tags and tags == {t for t in tags if t.strip("/") in
        {"h1", "h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "blockquote"}}  # fmt: skip
    assert html.count("<h1>") == 1 and "alert(1)" in html and "\x1b" not in card and "\u202e" not in card
    assert {len(row) for row in tables(card)["host"]} == {3} and {len(row) for row in tables(card)["crawl file"]} == {3}


@given(st.text(max_size=60))
def test_nothing_leaves_its_cell_or_the_header(text: str) -> None:
    """Every text, as a cell, as a name in a cell and in the header, gives one table of two columns, and one string that is read back."""
    for cell, types in ((escaped(text), {"text"}), (code(text), {"text", "code_inline"})):
        tokens = MARKDOWN.parse(f"| a | b |\n|--|--|\n| {cell} | z |")
        assert sum(token.type == "td_open" for token in tokens) == 2 and tokens[-1].type == "table_close"
        first, last = [token.children or [] for token in tokens if token.type == "inline"][2:]
        assert {child.type for child in first} <= types and [child.content for child in last] == ["z"]
        assert types != {"text"} or "".join(child.content for child in first) == safe_line(text)
    header = front_matter({"a": text, "b": "z"})
    documents = header.split("\n---\n")
    assert len(documents) == 2 and yaml.safe_load(documents[0]) == {**({"a": text} if text else {}), "b": "z"}


def test_languages_are_iso_codes() -> None:
    counts = Counter({"eng": 500, "als": 400, "zh_Hans": 300, "und": 200, "de": 100, "sh": 95, "xx<b>": 90, "fr": 1})
    assert iso_codes(counts) == ["en", "sq", "zh", "de", "hbs"]


def test_a_run_half_done(tmp_path, corpusmill) -> None:
    builder = write_run(tmp_path / "run", ("ingest",))
    assert corpusmill("card", builder.folder, "--output", tmp_path / "out")[0] == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "> **Not finished.** The recipe goes on with stages that have not run to their end: filter, dedup." in card
    assert "The documents were not filtered" in card and "Personal data was neither looked for" in card
    assert DatasetCard(card).data.to_dict()["configs"][0]["data_files"][0]["path"] == "ingest/data/*.parquet"
    RunBuilder(tmp_path / "none").json("run.json", {"recipe": {"ingest": {}}})
    code, _, error = corpusmill("card", tmp_path / "none")
    assert code == 2 and "the run has no documents yet" in error


def test_what_is_there_is_not_lost(run, tmp_path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match="corpusmill card did not write this file"):
        write_card(str(run), str(tmp_path))
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "about.md").write_text("Pages of *three* hosts.")
    for _ in range(2):
        write_card(str(run), str(tmp_path / "out"), "Mine", "cc-by-4.0", str(tmp_path / "about.md"))
    card = (tmp_path / "out/README.md").read_text()
    assert "Pages of *three* hosts." in card and "given under `cc-by-4.0`" in card
    for licence in ("any licence: mine", "nonsense", "mit or apache-2.0"):
        with pytest.raises(InputError, match="expected an id of SPDX or of the Hugging Face hub"):
            write_card(str(run), str(tmp_path / "x"), licence=licence)
    with pytest.raises(InputError, match="nothing.md: can't be read"):
        write_card(str(run), str(tmp_path / "x"), description=str(tmp_path / "nothing.md"))


def test_no_secret_and_no_private_path_is_published(tmp_path) -> None:
    signed = "https://me:pw1@host.test/x.warc.gz?X-Amz-Signature=sig1"
    builder = write_run(tmp_path / "run", ("ingest", "filter"))
    steps = [{"language": {"model": "/home/alice/models/lid.bin"}}, {"domains": {"file": "file:///home/alice/lists/mine.txt"}}]
    recipe = {"ingest": {"url_filter": {"domains": [f"{signed}&a=b"]}}, "filter": {"steps": steps}}
    builder.json("run.json", {"inputs": [signed, "/home/alice/in.warc.gz"], "recipe": recipe})
    said = shown_sentence(f"{signed} is odd; /home/alice/x/y.gz: 1/2, ingest/report/p")
    assert said == "https://host.test/x.warc.gz is odd; y.gz: 1/2, ingest/report/p"
    write_card(str(builder.folder))
    card = (builder.folder / "README.md").read_text()
    assert not re.search("pw1|sig1|alice|Signature", card)
    assert "https://host.test/x.warc.gz in.warc.gz" in card and "model: lid.bin" in card and "file: mine.txt" in card
    page = Path(write_report(str(builder.folder))).read_text()
    configuration = page[page.index("run.json: the resolved recipe") :]
    assert "https://***@host.test/x.warc.gz?X-Amz-Signature=***" in configuration and not re.search("pw1|sig1", configuration)
