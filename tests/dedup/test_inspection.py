"""Tests views of deduplication: `corpusmill clusters`, the page and `why`, on real runs of the stage."""

import html
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dedup_runs import words
from rich.console import Console
from stage_runs import perform

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.storage import Storage
from corpusmill.report.answers.clusters import find
from corpusmill.report.page.html import write_report

HOSTILE = "evil\x1b[2J<script>alert(1)</script>\x1b]0;title\x07\u202e"
Rows = list[dict[str, Any]]
Command = Callable[..., tuple[int, bytes, str]]


def changed(base: list[str], places: list[int], name: str) -> str:
    return " ".join(f"{name}{place}" if place in places else word for place, word in enumerate(base))


def pages() -> list[Rows]:
    """Makes two crawl files. `five`: one page and 4 exact copies of it; `near0` ... `near7`: pairs that differ in n words; single pages."""
    five = [{"text": " ".join(words(80, 1)), "url": f"http://a.test/five/{n}", "source": "crawl/a.warc.gz"} for n in range(5)]
    pairs: Rows = []
    for n in range(8):
        base = words(300, 100 + n)
        longer = " ".join([*base, f"{HOSTILE} end"])
        pairs.append({"text": longer, "url": f"http://a.test/near{n}/long", "source": "crawl/a.warc.gz"})
        text = changed(base, [30 + 20 * k for k in range(n)], f"x{n}y")
        pairs.append({"text": text, "url": f"http://b.test/near{n}/short", "source": "crawl/b.warc.gz"})
    alone = [{"text": " ".join(words(50, 200 + n)), "url": f"http://b.test/alone/{n}", "source": "crawl/b.warc.gz"} for n in range(30)]
    return [five + pairs[:8], pairs[8:] + alone]


def make_run(dedup: Callable[..., Any], shards: list[Rows] | None = None, **config: Any) -> Path:
    result = dedup(shards or pages(), threshold=0.7, **config)
    root = Path(result.run.run.root)
    recipe = {"filter": {}, "dedup": result.run.stage.config.model_dump(mode="json")}
    (root / "run.json").write_text(json.dumps({"inputs": [], "recipe": recipe, "versions": {}}))
    return root


@pytest.fixture(scope="module")
def run(shared_dedup: Callable[..., Any]) -> Path:
    return make_run(shared_dedup)


def cluster_rows(run: Path) -> Rows:
    tables = [pq.read_table(path) for path in sorted((run / "dedup" / "clusters").glob("*.parquet"))]
    return [row for table in tables if "kept_id" in table.column_names for row in table.to_pylist()]


def texts(run: Path) -> dict[str, str]:
    return {row["url"]: row["text"] for path in sorted((run / "filter" / "data").iterdir()) for row in pq.read_table(path).to_pylist()}


def as_json(corpusmill: Command, run: Path, *arguments: object) -> Rows:
    code, out, err = corpusmill("clusters", run, *arguments, "--json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def printed(run: Path, width: int = 80, color: bool = False, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=color, color_system="standard" if color else None, highlight=False)
    find(str(run), **{"which": None, "limit": None, "seed": 0, "document": None, **options}).show(console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


# ---- corpusmill clusters ----------------------------------------------------------------------------


def test_a_few_of_each_list(run: Path, corpusmill: Command) -> None:
    found = as_json(corpusmill, run)
    assert [row["list"] for row in found] == ["largest"] * 3 + ["doubtful"] * 3 + ["random"] * 3
    first = found[0]
    assert (first["size"], first["copies"], len(first["removed"]), first["kept_in"]) == (5, 4, 4, None)
    assert {member["url"] for member in [first["kept"], *first["removed"]]} == {f"http://a.test/five/{n}" for n in range(5)}
    assert all(member["verified"] == "exact" and member["similarity"] == 1 for member in first["removed"])
    assert first["removed"][0]["diff"] == {
        "equal": 80, "removed": 0, "added": 0, "cut": False,
        "passages": [
            {"kind": "equal", "text": " ".join(words(80, 1)[:10]), "words": 10},
            {"kind": "left out", "text": "60 equal words", "words": 60},
            {"kind": "equal", "text": " ".join(words(80, 1)[-10:]), "words": 10},
        ],
    }  # fmt: skip
    assert [member["diff"] for member in first["removed"][1:]] == [None] * 3


def test_the_most_doubtful_are_those_least_similar(run: Path, corpusmill: Command) -> None:
    found = as_json(corpusmill, run, "--doubtful", "--limit", 6)
    near = sorted(row["similarity"] for row in cluster_rows(run) if row["verified"] == "exact_jaccard")
    assert len(near) == 8 and [row["removed"][0]["similarity"] for row in found] == near[:6]
    assert [row["removed"][0]["url"] for row in found] == [f"http://b.test/near{n}/short" for n in (7, 6, 5, 4, 3, 2)]
    assert [row["kept"]["url"] for row in found] == [f"http://a.test/near{n}/long" for n in (7, 6, 5, 4, 3, 2)]
    assert [row["removed"][0]["diff"]["removed"] for row in found] == [7, 6, 5, 4, 3, 2]
    assert [row["removed"][0]["diff"]["added"] for row in found] == [9, 8, 7, 6, 5, 4]
    lengths = texts(run)
    assert all(row["kept"]["characters"] == len(lengths[row["kept"]["url"]]) for row in found)


def test_bad_input_is_one_sentence(run: Path, tmp_path: Path, corpusmill: Command) -> None:
    def refused(*arguments: object) -> str:
        code, out, err = corpusmill("clusters", *arguments)
        assert (code, out, err.count("\n")) == (2, b"", 1)
        return err

    assert "no document has the URL or id 'nowhere'" in refused(run, "--id", "nowhere")
    assert "\x1b" not in refused(run, "--id", "\x1b[2J")
    assert "--largest and --random exclude each other" in refused(run, "--largest", "--random")
    assert "--doubtful and --id exclude each other" in refused(run, "--doubtful", "--id", "x")
    assert "not a run, as it has no run.json" in refused(tmp_path)
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("dedup"))
    assert "the stage dedup has not run (run: corpusmill run" in refused(tmp_path / "run")


def test_on_a_terminal(run: Path) -> None:
    text = printed(run, 80)
    lines = text.splitlines()
    assert "Of each cluster the longest text is kept; ties go by id." in lines
    assert "The most doubtful removals: the least similar copies (threshold 0.7)" in lines
    assert "   kept    http://a.test/near7/long" in lines and "   removed http://b.test/near7/short" in lines
    assert re.search(r"id [0-9a-f]{32}, exact_jaccard 0\.\d{3}\n", text) and re.search(r"id [0-9a-f]{32}, the longest text\n", text)
    flat = re.sub(r"\s+", " ", text)
    base = words(300, 107)
    assert f"[-x7y30-] {{+{base[30]}+}}" in flat and "… 20 equal words …" in flat
    assert "293 equal words, 7 only in the removed copy, 9 only in the kept one" in flat
    assert "{+evil<script>alert(1)</script> end+}" in flat
    assert not any(c in text for c in "\x1b\x07\u202e") and max(map(len, lines)) <= 80


def test_documents_that_are_gone_leave_the_evidence(run: Path, tmp_path: Path, corpusmill: Command) -> None:
    run = Path(shutil.copytree(run, tmp_path / "run"))
    (run / "filter" / "data" / "part-00001.parquet").unlink()
    found = as_json(corpusmill, run, "--doubtful", "--limit", 1)[0]
    assert found["removed"][0]["characters"] is None and found["removed"][0]["diff"] is None
    text = printed(run, which="doubtful", limit=1)
    assert "(its shard is not there any more)" in text and "Warning: " in text and "part-00001.parquet" in text


# ---- before anything is removed ---------------------------------------------------------------------


def test_after_an_alarm_the_clusters_are_there_and_the_page_says_what_would_be_removed(dedup: Callable[..., Any]) -> None:
    run = make_run(dedup)
    shutil.rmtree(run / "dedup")
    stage = DedupStage(DedupStage.Config.model_validate({"threshold": 0.7, "alarm_share": 0.25, "alarm_documents": 10}))
    with pytest.raises(CorpusmillError, match=r"a.warc.gz: loses 30.8% of its 13 documents"):
        perform(Storage(str(run)), stage, earlier=["filter"])
    assert not (run / "dedup" / "data").exists() and not (run / "dedup" / "report").exists()
    text = printed(run)
    assert "Note: the stage dedup has not finished." in text and "[-x7y30-]" in text
    page = Path(write_report(str(run))).read_text()
    assert "4 exact and 8 near copies would be removed" in re.sub(r"<[^>]*>", "", page)


# ---- the page, and why ------------------------------------------------------------------------------


def test_the_page_shows_clusters_and_what_differs(run: Path) -> None:
    page = Path(write_report(str(run))).read_text()
    begin = page.index('<h2 id="duplicates">')
    section = page[begin : page.index("<h2 id=", begin + 1)]
    plain = re.sub(r"\s+", " ", html.unescape(re.sub(r"<pre.*?</pre>|<[^>]*>", "", section, flags=re.S)))
    assert "9 clusters hold 21 documents; 4 exact and 8 near copies were removed. Of each cluster the longest text is kept" in plain
    assert "a.warc.gz" in plain and "30.8%" in plain and "alarm" not in plain
    assert f"<del>x7y30</del> <ins>{words(300, 107)[30]}</ins>" in section
    assert "<ins>evil&lt;script&gt;alert(1)&lt;/script&gt; end</ins>" in section and "<script>alert" not in page
    assert "the same 80 words" in section
    for title in ("The largest clusters", "The most doubtful removals", "Clusters drawn at random"):
        assert f"<h3>{title}" in section
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page)[1])  # type: ignore[index]
    similarity = next(f for f in figures if f["x"].get("title") == "similarity to the kept document")
    (steps,) = similarity["series"]
    assert sum(steps["y"]) == 8 and similarity["marks"][0]["x"] == 0.7
    bars = [(low + high) / 2 for low, high, y in zip(steps["x"], steps["x"][1:], steps["y"]) if y]
    near = [row["similarity"] for row in cluster_rows(run) if row["verified"] == "exact_jaccard"]
    assert all(min(abs(bar - value) for bar in bars) <= 0.005001 for value in near)
    assert write_report(str(run)) and Path(run / "report.html").read_text() == page  # equal each time
