"""Tests the display of dedup's other work (lines, passages, contamination, clusters): page, terminal and `why`, on real runs."""

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dedup_runs import words
from printed_queries import not_reproduced
from printing import printed

from corpusmill.report.answers.why import explain
from corpusmill.report.page.html import write_report

HOSTILE = "Share \x1b[2J<script>alert(1)</script> \u202ethis page"
SHOWN = "Share <script>alert(1)</script> this page"
ITEM = "Anna keeps nine hens, and each hen lays four eggs in a week; how many eggs will she have gathered when three weeks are over?"
OTHER = "A train leaves the harbour at noon with two hundred sacks of rice and loses a tenth of them on every bridge it crosses."
Rows = list[dict[str, Any]]


def prose(count: int, seed: int) -> str:
    return " ".join(words(count, seed))


class Seen:
    """A run of the stage, with a run.json as a recipe's run has it."""

    def __init__(self, result: Any):
        self.root = Path(result.run.run.root)
        recipe = {"filter": {}, "dedup": result.run.stage.config.model_dump(mode="json")}
        (self.root / "run.json").write_text(json.dumps({"inputs": [], "recipe": recipe, "versions": {}}))
        self.report: Rows = result.report
        self.page = Path(write_report(str(self.root))).read_text()
        self.text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"</?(div|p|h\d|td|tr)\b", r" \g<0>", self.page))))
        cells = [re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", self.page, re.S)]
        self.rows = [[re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", cell))).strip() for cell in row] for row in cells]

    def why(self, document: str) -> str:
        return re.sub(r"\s+", " ", printed(explain(str(self.root), document).show))

    def reproduced(self) -> bool:
        """Asserts that the queries give all numbers of the page; returns True."""
        found = not_reproduced(str(self.root))
        assert not found, "\n".join(found)
        return True


See = Callable[..., Seen]


def section_of(page: str, name: str) -> str:
    """Returns a section of a page, up to the next one."""
    begin = page.index(f'<h2 id="{name}"')
    return page[begin : re.compile(r"<h2 |</main>").search(page, begin + 1).start()]  # type: ignore[union-attr]


@pytest.fixture
def see(dedup: Callable[..., Any]) -> See:
    def perform(shards: list[Rows], **config: Any) -> Seen:
        return Seen(dedup(shards, **config))

    return perform


# ---- repeated lines and passages --------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut(shared_dedup: Callable[..., Any]) -> Seen:
    """Makes 12 documents, each with a line of its own and a hostile one. 10 have the line `menu` twice; two share a passage of 60 words;
    one has nothing but the line `menu`.
    """
    shared = prose(60, 1)
    pages = [{"text": f"{prose(20, 10 + n)}\n{HOSTILE}\n" + "menu\nmenu\n" * (n < 10), "url": f"http://a.test/{n}"} for n in range(12)]
    both = [{"text": f"{prose(30, 50 + n)} {shared} {prose(30, 60 + n)}", "url": f"http://b.test/{n}"} for n in range(2)]
    return Seen(shared_dedup([pages, [*both, {"text": "menu", "url": "http://b.test/menu"}]], lines={}, substrings={}))


def test_page_and_why_have_what_was_cut(cut: Seen) -> None:
    kept = [row for row in cut.report if row["kept"]]
    characters = sum(row["chars_in"] - row["chars_out"] for row in kept if row["lines_cut"])
    passage = sum(row["chars_in"] - row["chars_out"] for row in kept if row["substring_spans"])
    before = sum(row["chars_in"] for row in kept)
    assert len(kept) == 14 and passage >= len(prose(60, 1)) and cut.reproduced()
    assert ["lines", "12", "32", "46", f"{characters:,}", f"{characters / before:.1%} {characters / before:.1%}", "1"] in cut.rows
    assert ["passages", "1", "1", "", f"{passage:,}", f"{passage / before:.1%} {passage / before:.1%}", "0"] in cut.rows
    ids = {row["url"]: row["id"] for row in cut.report}
    first = f"http://a.test/0 {ids['http://a.test/0']}"
    assert [SHOWN, "12", "12", "1", first] in cut.rows and ["menu", "11", "21", "1", first] in cut.rows
    assert "<script>alert" not in cut.page and not any(c in cut.page for c in "\x1b\u202e")
    row = next(row for row in cut.report if row["url"] == "http://a.test/3")
    assert f"repeated lines cut: 3 of 4, {row['chars_in'] - row['chars_out']} characters" in cut.why(row["url"])
    assert "failed only_repeated_lines" in cut.why("http://b.test/menu")


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    for name, item in (("hens", ITEM), ("trains", OTHER)):
        rows = [{"question": prose(20, 9), "answer": "none of the words"}, {"question": item, "answer": "it is too early to say"}]
        rows += [{"question": "Who of them is it?", "answer": "a"}, {"question": "Who is it?", "answer": "b"}] if name == "trains" else []
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(tmp_path / "hens.jsonl"), str(tmp_path / "trains.jsonl")]


def dirty(place: int) -> str:
    """Returns `ITEM` with one word fewer for each place, after hostile characters."""
    some = ITEM.split()
    return f"{prose(60, place)} {' '.join(some[: len(some) - place])} <script>alert({place})</script> {prose(60, 100 + place)}"


@pytest.mark.parametrize("action", ["drop", "cut"])
def test_contamination(see: See, sets: list[str], action: str) -> None:
    rows = [{"text": dirty(n), "url": f"http://a.test/{n}"} for n in range(5)]
    both = {"text": f"{prose(60, 7)} {OTHER} {ITEM} {prose(60, 8)}", "url": "http://b.test/both"}
    tiny = {"text": f"few words {OTHER}", "url": "http://b.test/tiny"}
    clean = [{"text": prose(90, 200 + n), "url": f"http://c.test/{n}"} for n in range(12)]
    seen = see([[*rows, both], [tiny, *clean]], contamination={"sets": sets, "action": action})
    found = [row for row in seen.report if row["contaminated_set"]]
    assert seen.reproduced() and len(found) == 7
    said = {"drop": "dropped", "cut": "1 dropped, since too little was left; 6 cut out"}[action]
    assert f"7 of 19 documents hold items of evaluation sets (8 in all): {said}." in seen.text
    hens = {"drop": "6", "cut": "0"}[action]
    assert ["hens", "2", "2", "0", "0", "0", "1", "6", "31.6% 31.6%", hens] in seen.rows
    assert ["trains", "4", "1", "2", "1", "0", "1", "1", "5.3% 5.3%", "1"] in seen.rows  # the first item is also the first of `hens`
    if action == "cut":
        assert f"{sum(row['chars_in'] - row['chars_out'] for row in found if row['kept']):,} characters were cut" in seen.text
    text = seen.why("http://b.test/both")
    kept = {"drop": "dropped for it", "cut": "cut out"}[action]
    assert f"holds item 1 of hens (question), 100.0% of its words: {kept} and 1 more item of evaluation sets" in text
    assert f"the passage: {ITEM[:30]}" in text and not re.search(r"contaminated_|contamination_(item|field|passage)", text)
    assert "holds item" not in seen.why("http://c.test/3")


def test_documents_that_full_clusters_left(see: See) -> None:
    text = words(80, 1)
    family = [{"text": " ".join([*text, *(f"m{i}" for i in range(6 - step))]), "url": f"http://a.test/{step}"} for step in range(6)]
    seen = see([family], max_cluster=3)
    head, left = seen.report[0], seen.report[4]
    assert seen.reproduced() and [row["full_cluster"] for row in seen.report] == [None] * 4 + [head["id"]] * 2
    assert "1 cluster was full (max_cluster 3): 2 documents stay that are like its kept one." in seen.text
    assert [f"http://a.test/0 · {head['id']}", "2"] in seen.rows
    said = f"like {head['id']} (http://a.test/0): similarity {left['similarity']:.4g}"
    assert f"{said} that one's cluster was full (max_cluster 3), so this one stays" in seen.why("http://a.test/4")


def test_earlier_runs(see: See, tmp_path: Path) -> None:
    """`one` keeps b and d; `two` has a longer copy of b and a shorter one of d. c was removed because of b, and b because of a."""
    text, other = words(100, 1), words(80, 2)
    a, b, c = " ".join([*text[:60], "l0", "l1", "l2", "l3"]), " ".join([*text[6:66], "l"]), " ".join(text[12:72])
    config = {"minhash": {"bands": 30, "rows": 2}, "threshold": 0.7}
    index = {"path": str(tmp_path / "index")}
    rows = [{"text": b, "url": "http://one.test/b"}, {"text": c, "url": "http://one.test/c"}]
    one = see([[*rows, {"text": " ".join([*other, "x"]), "url": "http://one.test/d"}]], index={**index, "name": "one"}, **config)
    assert "No document is a copy of one of an earlier run." in one.text
    new = [{"text": a, "url": "http://two.test/a"}, {"text": " ".join(other), "url": "http://two.test/d"}]
    two = see([new], index={**index, "name": "two"}, **config)
    ids = {row["url"]: row["id"] for row in one.report + two.report}
    assert one.reproduced() and two.reproduced()
    assert "1 document was removed here for copies that earlier runs keep." in two.text
    assert "Of documents of earlier runs 1 is replaced by better copies, 1 is restored." in two.text
    assert ["one", "1", "1", "1"] in two.rows
    assert f"replaced in one: {ids['http://one.test/b']} kept in this run: http://two.test/a · {ids['http://two.test/a']}" in two.text
    assert f"restored in one: {ids['http://one.test/c']}" in two.text
    assert f"a copy of {ids['http://one.test/d']}, which was kept: in the earlier run one similarity 0.987" in two.why("http://two.test/d")


def test_damaged_tables_are_warnings(cut: Seen, tmp_path: Path) -> None:
    shutil.copytree(cut.root, tmp_path / "run")
    (tmp_path / "run/dedup/lines/top.parquet").write_bytes(b"no Parquet")
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "dedup/lines/top.parquet" in page and "menu" not in section_of(page, "inside")
