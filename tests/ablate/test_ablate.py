"""Tests a whole comparison on Python's own manual: what is trained on, what judges, the verdict, resuming, and bad input."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pyarrow.parquet as pq
import pytest

import corpusmill
from corpusmill.ablate.corpora import require_one_language
from corpusmill.ablate.draws import DrawnDocuments
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.report.answers import diff
from corpusmill.report.answers.diff import DiffOptions


def paragraphs() -> list[str]:
    """Returns the manual in parts of about 1,500 characters."""
    found, part = [], ""
    for _, text in sorted(topics.items()):
        for paragraph in text.split("\n\n"):
            part += paragraph + "\n\n"
            if len(part) > 1500:
                found.append(part)
                part = ""
    return found


def make_run(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text, "url": f"http://manual.test/{n}"}) + "\n" for n, text in enumerate(texts)))
    corpusmill.run({"ingest": {}}, path, folder / name, engine="inline")
    return str(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ablate")
    texts = paragraphs()
    judges, rest = texts[::6], [text for number, text in enumerate(texts) if number % 6]
    (made / "judges.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in judges))
    generator = random.Random(0)
    shuffled = [" ".join(generator.sample(text.split(), len(text.split()))) for text in rest]
    make_run(made, "manual", [*rest, f"It says:\n\n{judges[3]}\n\nAnd so on."])
    make_run(made, "shuffled", shuffled)
    return made


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "variants": {"manual": str(folder / "manual"), "shuffled": str(folder / "shuffled")},
        "references": [str(folder / "judges.jsonl")],
        "held_out": 10, "vocab_size": 512, "model": {"preset": "0.8m", "context": 64}, "batch": 8, "tokens": 30 * 8 * 64, "draws": 3,
        **changes,
    }  # fmt: skip


def compare(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    corpusmill.run({"ablate": options(folder, **changes)}, [], folder / name, engine="inline")
    found: dict[str, Any] = json.loads((folder / name / "ablate/result.json").read_text())
    return found


@pytest.fixture(scope="module")
def compared(folder: Path) -> dict[str, Any]:
    return compare(folder, "out")


@pytest.mark.long
def test_shuffled_words_make_a_worse_model(compared: dict[str, Any]) -> None:
    _, shuffled = compared["variants"]
    assert shuffled["difference"]["low"] > 0
    assert shuffled["sentence"].startswith("shuffled makes a worse model than manual: +")
    assert compared["judging"] == ["judges"]
    assert set(compared["sets"]) == {"held-out", "judges"}


@pytest.mark.long
def test_the_report_names_the_verdict_and_the_page(compared: dict[str, Any], folder: Path) -> None:
    html = (folder / "out/report.html").read_text()
    sentence = compared["variants"][1]["sentence"]
    assert sentence.replace("+", "&#43;") in html or sentence in html
    assert 'href="ablate/page.html"' in html
    page = (folder / "out/ablate/page.html").read_text()
    assert sentence.split(":")[0] in page and "http" not in page.replace("http://www.w3.org", "").partition("<body>")[0]


@pytest.mark.long
def test_a_document_that_holds_a_reference_is_left_out(compared: dict[str, Any], folder: Path) -> None:
    planted = len(paragraphs()) - len(paragraphs()[::6])  # the last one of the variant
    index = pq.read_table(folder / "out/prepared/variants/manual/tokens/train/tokens-00000.index.parquet")
    assert f"http://manual.test/{planted}" not in index["url"].to_pylist()
    manual = compared["variants"][0]
    assert manual["documents"] <= len(index)
    assert manual["documents"] + manual["removed"] == planted + 1


@pytest.mark.long
def test_held_out_documents_are_left_out(compared: dict[str, Any], folder: Path) -> None:
    held_out = [json.loads(line)["text"] for line in (folder / "out/ablate/references/held-out.jsonl").read_text().splitlines()]
    assert len(held_out) == compared["sets"]["held-out"]["documents"] == 10
    for name in ("manual", "shuffled"):
        kept = [
            text
            for path in (folder / f"out/prepared/variants/{name}/dedup/data").iterdir()
            for text in pq.read_table(path)["text"].to_pylist()
        ]
        assert not set(held_out) & set(kept)


@pytest.mark.long
def test_measurements_give_the_figures(compared: dict[str, Any], folder: Path) -> None:
    table = pq.read_table(folder / "out/ablate/measurements.parquet").to_pandas()
    for row in compared["variants"]:
        some = table[(table.variant == row["variant"]) & (table["set"] == "judges")].groupby("draw")[["nats", "utf8_bytes"]].sum()
        assert row["bits_per_byte"]["judges"] == pytest.approx((some.nats / some.utf8_bytes / 0.6931471805599453).tolist())


@pytest.mark.long
def test_a_finished_comparison_is_not_trained_again(compared: dict[str, Any], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "out/ablate").rglob("[!.]*.parquet")}
    assert compare(folder, "out") == compared
    assert {path: path.stat().st_mtime_ns for path in (folder / "out/ablate").rglob("[!.]*.parquet")} == before


@pytest.mark.long
def test_a_budget_reads_no_token_more_than_four_times(folder: Path, compared: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.ablate.proxy.step_seconds", lambda *_: (1.0, 1e-6))  # a machine on which no budget is short
    with pytest.raises(InputError, match="nothing can be seen; give more time or documents"):
        compare(folder, "budget", tokens=None, batch=256)
    steps = json.loads((folder / "budget/ablate/plan.json").read_text())["steps"]
    parts = [part_tokens(folder / "budget", name) for name in ("manual", "shuffled")]
    assert steps == 4 * min(min(tokens) for tokens in parts) // (256 * 64) < 20


@pytest.mark.long
def test_a_budget_that_shows_nothing_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(InputError, match=r"1s is too short: 6 trainings of 20 steps take about \d+m here"):
        compare(folder, "short", tokens=None, budget="1s")
    assert not (folder / "short/prepared").exists()


def part_tokens(run: Path, variant: str) -> list[int]:
    shards = TokenShards(run / f"prepared/variants/{variant}/tokens/train")
    drawn = DrawnDocuments(shards, pq.read_table(run / "ablate/groups.parquet"), 3)
    return drawn.tokens.tolist()


@pytest.mark.long
def test_equal_options_give_equal_bytes(compared: dict[str, Any], folder: Path) -> None:
    assert compare(folder, "again")["variants"] == compared["variants"]
    tables = [pq.read_table(folder / name / "ablate/measurements.parquet") for name in ("out", "again")]
    assert tables[0].equals(tables[1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"a": "manual"}}, "one variant alone can't be compared"),
        ({"variants": {"a": "manual", "b": "manual"}}, "a and b have equal documents"),
        ({"variants": {"a": "manual", "b": "nowhere"}}, "nowhere: no run, no recipe .* and no folder of token shards"),
        ({"tokens": 10**9}, "fewer than a 20th of the"),
    ],
)
def test_bad_input(folder: Path, compared: dict[str, Any], changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=message):
        compare(folder, "bad", **changes)
    assert not list((folder / "bad").rglob("trainings/*"))


@pytest.mark.long
def test_a_search_for_a_mixture_prefers_the_whole_texts(folder: Path) -> None:
    rows = [
        json.dumps({"text": text, "kind": name})
        for name in ("manual", "shuffled")
        for path in sorted((folder / f"{name}/ingest/data").iterdir())
        for text in pq.read_table(path)["text"].to_pylist()
    ]
    (folder / "both.jsonl").write_text("\n".join(rows) + "\n")
    corpusmill.run({"ingest": {}}, folder / "both.jsonl", folder / "both", engine="inline")
    mixture = {"proxies": 16, "by": "kind"}
    found = compare(folder, "mixture", variants={"both": str(folder / "both")}, mixtures=mixture)["mixture"]
    weights = {row["component"]: (row["natural"], row["proposed"]) for row in found["components"]}
    assert set(weights) == {"manual", "shuffled"}
    assert weights["manual"][1] > max(0.5, weights["manual"][0])
    assert found["predicted"]["proposed"] < found["predicted"]["natural"]


@pytest.mark.long
def test_leaving_a_rule_out_brings_back_what_it_alone_dropped(folder: Path) -> None:
    source = {"ingest": {}, "filter": {"steps": [{"gopher_quality": {}}], "thresholds": {"gopher_short_doc": 200}}}
    corpusmill.run(source, folder / "manual.jsonl", folder / "filtered", engine="inline")
    alone = corpusmill.open_run(folder / "filtered").sql("SELECT failed[1], count(*) FROM filter_report WHERE len(failed) = 1 GROUP BY 1")
    wanted = dict(alone.fetchall())
    assert wanted
    found = compare(folder, "rules", variants={"filtered": str(folder / "filtered")}, leave_one_out=True, tokens=20 * 8 * 64)
    kept = found["variants"][0]["stages"]["filter"]["kept"]
    assert {row["variant"]: row["stages"]["filter"]["kept"] - kept for row in found["variants"][1:]} == {
        f"without-{rule}": count for rule, count in wanted.items()
    }


def test_a_variant_may_be_partly_in_another_language() -> None:
    require_one_language({"empty": {}, "a": {"en": 0.9, "de": 0.1}, "b": {"de": 0.6, "en": 0.4}})
    with pytest.raises(InputError, match="most documents of a are in the language en, and of c in de"):
        require_one_language({"a": {"en": 1.0}, "c": {"de": 0.9, "en": 0.1}})


@pytest.mark.long
def test_a_reference_set_that_stands_in_a_variant_is_refused(folder: Path, compared: dict[str, Any]) -> None:
    judges = [json.loads(line)["text"] for line in (folder / "judges.jsonl").read_text().splitlines()]
    run = make_run(folder, "with-judges", [*paragraphs()[1::6], *judges])
    variants = {"manual": str(folder / "manual"), "with-judges": run}
    with pytest.raises(InputError, match=r"judges stands in the variant with-judges \(passages of 4\d of its 44 documents"):
        compare(folder, "inside", variants=variants)
    assert not list((folder / "inside").rglob("trainings/*"))


@pytest.mark.long
def test_a_comparison_that_was_killed_goes_on_to_the_same_bytes(folder: Path, compared: dict[str, Any]) -> None:
    recipe = folder / "killed.yaml"
    recipe.write_text(json.dumps({"ablate": options(folder)}))
    command = [sys.executable, "-m", "corpusmill", "run", str(recipe), "--output", str(folder / "killed"), "--engine", "inline"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (folder / "killed/ablate/trainings/shuffled-00-choices.parquet").exists():  # the second training, so the first is listed
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    done = {path: path.stat().st_mtime_ns for path in (folder / "killed/ablate/trainings").glob("manual-00*")}
    assert len(done) == 3 and not (folder / "killed/ablate/result.json").exists()
    assert compare(folder, "killed")["variants"] == compared["variants"]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert pq.read_table(folder / "killed/ablate/measurements.parquet").equals(pq.read_table(folder / "out/ablate/measurements.parquet"))


@pytest.mark.long
def test_the_difference_of_two_runs_names_the_verdict_on_them(
    compared: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    wanted = {"sentence": compared["variants"][1]["sentence"], "page": str(folder / "out/ablate/page.html")}
    assert wanted in diff.compare("manual", "shuffled", DiffOptions()).ablations
    make_run(folder, "other", paragraphs()[:20])
    assert diff.compare("manual", "other", DiffOptions()).ablations == []
