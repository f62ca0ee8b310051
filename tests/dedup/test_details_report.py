"""Tests the display of dedup's other work (lines, passages, contamination, clusters): page, terminal and `why`, on real runs."""

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dedup_runs import words
from printed_queries import not_reproduced
from printing import printed

from corpusmill.report.answers.terminal import render_report
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

    def terminal(self) -> str:
        text = printed(render_report, str(self.root))
        assert all(len(line) <= 80 for line in text.splitlines() if "corpusmill" not in line) and not any(c in text for c in "\x1b\u202e")
        return re.sub(r"[\s─]+", " ", text)

    def why(self, document: str) -> str:
        return re.sub(r"\s+", " ", printed(explain(str(self.root), document).show))

    def reproduced(self) -> bool:
        """Asserts that the queries give all numbers of the page; returns True."""
        found = not_reproduced(str(self.root))
        assert not found, "\n".join(found)
        return True

    def histograms(self) -> set[str]:
        values = self.page[self.page.index('<h2 id="values">') : self.page.index('<h2 id="origins">')].replace("<wbr>", "")
        same = re.search(r"<summary>dedup: .*?The same in all documents: (.*?)\.</p>", values, re.DOTALL)
        drawn = re.findall(r'id="card-dedup-[^>]*><summary><b>(.*?)</b>', values)
        return {*drawn, *(pair.split()[0] for pair in same[1].split(", "))} if same else set(drawn)


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


def test_the_page_has_what_was_cut_and_its_queries_give_it(cut: Seen) -> None:
    kept = [row for row in cut.report if row["kept"]]
    characters = sum(row["chars_in"] - row["chars_out"] for row in kept if row["lines_cut"])
    passage = sum(row["chars_in"] - row["chars_out"] for row in kept if row["substring_spans"])
    before = sum(row["chars_in"] for row in kept)
    assert len(kept) == 14 and passage >= len(prose(60, 1))
    assert ["lines", "12", "32", "46", f"{characters:,}", f"{characters / before:.1%} {characters / before:.1%}", "1"] in cut.rows
    assert ["passages", "1", "1", "", f"{passage:,}", f"{passage / before:.1%} {passage / before:.1%}", "0"] in cut.rows
    assert '<a href="#inside">' in cut.page and '<h2 id="inside">' in cut.page
    assert cut.reproduced() and {"query-cuts", "query-top-lines"} <= set(re.findall(r'div class="query" id="([^"]*)"', cut.page))
    assert cut.histograms() >= {"chars_in", "cluster_size", "lines_in", "lines_cut", "line_chars_cut", "substring_spans"}
    assert "similarity" not in cut.histograms()


def test_the_page_lists_the_most_frequent_lines(cut: Seen) -> None:
    top = pq.read_table(cut.root / "dedup" / "lines" / "top.parquet").to_pylist()
    assert len(top) == 2
    ids = {row["url"]: row["id"] for row in cut.report}
    first = f"http://a.test/0 {ids['http://a.test/0']}"
    assert [SHOWN, "12", "12", "1", first] in cut.rows and ["menu", "11", "21", "1", first] in cut.rows
    assert "Lines of 10 documents or more are cut from all of them." in cut.text
    assert "<script>alert" not in cut.page and not any(c in cut.page for c in "\x1b\u202e")


def test_long_lists_of_lines_are_short_on_the_page(see: See) -> None:
    lines = [" ".join(words(5, n)) + " long" * (200 if n == 0 else 0) for n in range(40)]
    seen = see(
        [[{"text": "\n".join([prose(20, 100 + n), *lines]), "url": f"http://a.test/{n}"} for n in range(10)]],
        lines={"normalisation": "none"},
        threshold=1.0,
    )
    shown = [row for row in seen.rows if len(row) == 5 and row[1:4] == ["10", "10", "1"]]
    assert len(shown) == 25 and max(len(row[0]) for row in shown) <= 200
    assert "and 15 more in dedup/lines/top.parquet" in seen.text


def test_the_terminal_has_what_was_cut(cut: Seen) -> None:
    text = cut.terminal()
    assert re.search(r"lines 12 32 [\d,]+ [\d.]+% 1 passages 1 1 [\d,]+ [\d.]+% 0", text)
    assert f"The most frequent lines that were cut line documents crawl files {SHOWN} 12 1 menu 11 1" in text


def test_why_says_what_was_cut(cut: Seen) -> None:
    row = next(row for row in cut.report if row["url"] == "http://a.test/3")
    assert f"repeated lines cut: 3 of 4, {row['chars_in'] - row['chars_out']} characters repeated passages cut: 0 " in cut.why(row["url"])
    row = next(row for row in cut.report if row["substring_spans"])
    text = cut.why(row["url"])
    assert f"repeated lines cut: 0 of 1 repeated passages cut: 1, {row['chars_in'] - row['chars_out']} characters" in text
    assert "failed only_repeated_lines" in cut.why("http://b.test/menu")
    assert "lines_in" not in text and "substring" not in text


# ---- contamination ----------------------------------------------------------------------------------


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
    offer = "With --set dedup.contamination.min_words=4, 1 of them would be"
    assert f"2 items have fewer than 7 words; these are not searched for. {offer}" in seen.text
    if action == "cut":
        assert f"{sum(row['chars_in'] - row['chars_out'] for row in found if row['kept']):,} characters were cut" in seen.text
    section = section_of(seen.page, "contamination")
    least = sorted((row for row in found if row["contaminated_set"] == "hens"), key=lambda row: row["contamination"])[:3]
    assert re.findall(r"https?://[abc].test/\w+", section) == [row["url"] for row in least] + ["http://b.test/tiny"]
    assert f"item 1 of hens (question), {least[0]['contamination']:.1%} of its words" in seen.text
    assert "4 of 7 documents:" in seen.text and html.escape(least[0]["contamination_passage"], quote=False)[:60] in section
    terminal = seen.terminal()
    assert "Contamination: 7 of 19 documents hold items of evaluation sets" in terminal
    assert f"hens 2 2 0 1 6 {hens} trains 4 1 2 1 1" in terminal
    text = seen.why("http://b.test/both")
    kept = {"drop": "dropped for it", "cut": "cut out"}[action]
    assert f"holds item 1 of hens (question), 100.0% of its words: {kept} and 1 more item of evaluation sets" in text
    assert f"the passage: {ITEM[:30]}" in text and not re.search(r"contaminated_|contamination_(item|field|passage)", text)
    assert "holds item" not in seen.why("http://c.test/3")
    assert {"contaminated_item", "contamination_items"} & seen.histograms() == set() and "contamination" in seen.histograms()


def test_contamination_that_is_only_reported(see: See, sets: list[str]) -> None:
    rows = [{"text": dirty(0), "url": "http://a.test/0"}, {"text": prose(90, 200), "url": "http://c.test/0"}]
    seen = see([rows], contamination={"sets": sets, "action": "report"})
    assert "1 of 2 documents holds items of evaluation sets (1 in all): only reported. The documents stay as they are." in seen.text
    assert ["hens", "2", "2", "0", "0", "0", "1", "1", "50.0% 50.0%", "0"] in seen.rows and "hens 2 2 0 1 1 0" in seen.terminal()
    assert "100.0% of its words: only reported" in seen.why("http://a.test/0")


def test_nothing_contaminated(see: See, sets: list[str]) -> None:
    seen = see([[{"text": prose(90, n), "url": f"http://c.test/{n}"} for n in range(5)]], contamination={"sets": sets})
    assert "Nothing of the evaluation sets was found in 5 documents." in seen.text
    assert ["trains", "4", "1", "2", "1", "0", "0", "0", "0.0% 0.0%", "0"] in seen.rows
    assert "items searched too short matched documents dropped hens 2 2 0 0 0 0 trains 4 1 2 0 0 0" in seen.terminal()


# ---- full clusters, earlier runs --------------------------------------------------------------------


def test_documents_that_full_clusters_left(see: See) -> None:
    text = words(80, 1)
    family = [{"text": " ".join([*text, *(f"m{i}" for i in range(6 - step))]), "url": f"http://a.test/{step}"} for step in range(6)]
    seen = see([family], max_cluster=3)
    head, left = seen.report[0], seen.report[4]
    assert seen.reproduced() and [row["full_cluster"] for row in seen.report] == [None] * 4 + [head["id"]] * 2
    assert "1 cluster was full (max_cluster 3): 2 documents stay that are like its kept one." in seen.text
    assert [f"http://a.test/0 · {head['id']}", "2"] in seen.rows
    assert "Full clusters (max_cluster 3) clusters similar documents that stay 1 2" in seen.terminal()
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
    assert (
        f"removed: verified word by word, 0.987 · http://two.test/d · {ids['http://two.test/d']} kept in one: {ids['http://one.test/d']}"
        in two.text
    )
    assert f"replaced in one: {ids['http://one.test/b']} kept in this run: http://two.test/a · {ids['http://two.test/a']}" in two.text
    assert f"restored in one: {ids['http://one.test/c']}" in two.text
    assert "its documents restored one 1 1 1" in two.terminal()
    assert f"a copy of {ids['http://one.test/d']}, which was kept: in the earlier run one similarity 0.987" in two.why("http://two.test/d")


def test_a_report_of_another_version_is_left_out(cut: Seen, tmp_path: Path) -> None:
    shutil.copytree(cut.root, tmp_path / "run")
    for path in (tmp_path / "run/dedup/report").iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["kept"]), path)
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "its report is of another version" in page and "The most frequent lines that were cut" in page and "passages" not in page


def test_only_what_a_run_has_is_there(see: See) -> None:
    seen = see([[{"text": prose(50, n // 2), "url": f"http://a.test/{n}"} for n in range(6)]])
    for title in ("Inside documents", "Contamination", "Full clusters", "Earlier runs"):
        assert title not in seen.page
    assert 'id="inside"' not in seen.page and 'id="contamination"' not in seen.page
    text = seen.terminal()
    assert not any(title in text for title in ("Repeats cut", "most frequent", "Contamination", "Full clusters", "Earlier runs"))
    assert "repeated" not in seen.why("http://a.test/1") and "holds item" not in seen.why("http://a.test/1")


def test_damaged_tables_are_warnings(cut: Seen, tmp_path: Path) -> None:
    shutil.copytree(cut.root, tmp_path / "run")
    (tmp_path / "run/dedup/lines/top.parquet").write_bytes(b"no Parquet")
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "dedup/lines/top.parquet" in page and "menu" not in section_of(page, "inside")
