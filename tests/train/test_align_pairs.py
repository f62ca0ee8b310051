"""Tests pairs from documents, from files and from a run's scores."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_classifiers import WORDS, make_classifier

from corpusmill.filters.scores import FilterScore, dropped_documents, find_score, score_texts
from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.errors import InputError, NothingKept
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tasks
from corpusmill.train.align import PreferencePair, build_pairs, pairs_of, prepare_pair, read_pairs
from corpusmill.train.tasks import (
    TOLERANCE,
    PairPool,
    find_pool,
    match,
)
from corpusmill.train.template import LLAMA3, ChatEncoder, add_special_tokens
from corpusmill.train.tuning import AlignConfig, AlignStage, report_table
from corpusmill.train.user_files import preferences

# ---- preference data ---------------------------------------------------------------------------------


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


USER, GOOD, BAD = turn("user", "Hi"), turn("assistant", "Hello"), turn("assistant", "Go away")


def documents(count: int) -> pa.Table:
    rows = []
    for n in range(count):
        text = " ".join(f"Mill number {n} grinds grain of the field {k}." for k in range(12))
        rows.append({"id": f"d{n}", "url": f"https://mill.test/{n}", "title": "", "text": text})
    return pa.Table.from_pylist(rows)


def test_rejected_completions_are_false_and_as_long():
    pairs = build_pairs([documents(80)], "s", 80, 1, 150, lambda _: False)
    assert len(pairs) == 80 and {pair.kind for pair in pairs} == {"other", "repeated", "shuffled"}
    for pair in pairs:
        chosen, rejected = pair.chosen[0]["content"], pair.rejected[0]["content"]
        assert chosen != rejected and abs(len(chosen) - len(rejected)) < 80
        number = pair.id[1:]
        assert f"number {number} " in chosen
        if pair.kind == "other":
            assert f"number {number} " not in rejected
        if pair.kind == "shuffled":
            assert sorted(chosen.split()) == sorted(rejected.split())


def test_nothing_held_out_is_learned():
    pairs = build_pairs([documents(80)], "s", 80, 1, 150, lambda identifier: int(identifier[1:]) % 4 == 0)
    others = [pair for pair in pairs if pair.kind == "other"]
    assert {pair.held_out for pair in others} == {False, True}
    for pair in others:
        (number,) = {int(n) for n in re.findall(r"number (\d+) ", pair.rejected[0]["content"])}
        assert f"d{number}" == pair.rejected_id and (number % 4 == 0) == pair.held_out


def test_a_script_without_spaces_is_shuffled_by_characters():
    text = "水车在河边转动把谷物磨成面粉供全村人食用。" * 12
    table = pa.Table.from_pylist([{"id": f"d{n}", "url": None, "title": "", "text": f"{text}{n}"} for n in range(40)])
    for pair in build_pairs([table], "s", 40, 1, 150, lambda _: False):
        if pair.kind != "other":
            assert pair.chosen != pair.rejected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"instruction": "Hi", "input": "", "output": "unused", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_formats(tmp_path, row):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    (pair,) = read_pairs([str(path)], 0.0)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], [GOOD], [BAD])


def test_a_prompt_comes_before_what_the_completions_share():
    """Turns with which both begin are a part of the prompt, and do not replace it."""
    rest = [GOOD, turn("user", "Then?")]
    row = {"prompt": [USER], "chosen": [*rest, GOOD], "rejected": [*rest, BAD]}
    assert preferences("a:1", row) == [("a:1", ([USER, *rest], [GOOD], [BAD]))]
    system = turn("system", "Be kind.")
    row = {"prompt": "Then?", "chosen": [system, USER, *rest, GOOD], "rejected": [system, USER, *rest, BAD]}
    assert preferences("a:1", row) == [("a:1", ([system, USER, *rest], [GOOD], [BAD]))]


def test_a_row_that_is_no_pair_is_a_report_row(tmp_path, encoder):
    path = tmp_path / "own.jsonl"
    rows = ['{"prompt": "a", "chosen": "b", "rejected": "c"}', '{"prompt": "a", "chosen": "b"}', "{not JSON", "[1]",
            '{"prompt": "a", "chosen": [{"role": "alien", "content": "b"}], "rejected": "c"}']  # fmt: skip
    path.write_text("\n".join(rows))
    prepared = [prepare_pair(pair, encoder, 64) for pair in read_pairs([str(path)], 0.0)]
    report = report_table(prepared).to_pylist()
    assert [row["kept"] for row in report] == [True, False, False, False, False]
    assert [row["id"] for row in report] == [f"{path}:{number}" for number in range(1, 6)]
    assert [row["failed"] for row in report[1:]] == [["no_pair"], ["not_json"], ["no_pair"], ["unknown_role"]]
    assert all(row["note"].startswith(f"{path}:{number}") for number, row in enumerate(report[1:], 2))
    assert "`rejected` is missing" in report[1]["note"] and report[1]["chars_in"] == report[1]["n_chosen_tokens"] == 0


def test_a_file_without_any_pair_is_refused(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"chosen": "b"}\n{"rejected": "b"}')
    with pytest.raises(InputError, match=r"own\.jsonl: none of its 2 rows is a pair; .*own\.jsonl:1: no pair: `rejected` is missing"):
        read_pairs([str(path)], 0.0)


def test_an_answer_whose_begin_the_tokenizer_joins_with_its_prompt_follows_it(tokenizer_json):
    """GPT-2's pattern cuts two line breaks before a word, and keeps them together at the end of a prompt."""
    tokenizer = json.loads(tokenizer_json)
    tokenizer["model"]["merges"].append(["Ċ", "Ċ"])
    tokenizer["model"]["vocab"]["ĊĊ"] = len(tokenizer["model"]["vocab"])
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special = add_special_tokens(json.dumps(tokenizer).encode(), names)
    joining = ChatEncoder(special, LLAMA3, special={"bos_token": names[0]})
    prompt, whole = joining.encode([USER], add_generation_prompt=True).ids, joining.encode([USER, GOOD]).ids
    assert not np.array_equal(whole[: len(prompt)], prompt)
    chosen = prepare_pair(PreferencePair("x", None, "file", False, [USER], [GOOD], [BAD]), joining, 128).sides[0]
    assert np.array_equal(chosen.ids[: len(prompt)], prompt) and not chosen.mask[: len(prompt)].any()
    answer, text = (joining.tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in (chosen.ids[chosen.mask], chosen.ids))
    assert (answer, text) == ("Hello<|eot_id|>", joining.tokenizer.decode(whole.tolist(), skip_special_tokens=False))


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer_json):
    source = "{{ messages | length }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    rewriting = ChatEncoder(tokenizer_json, source, "x.jinja")
    prepared = prepare_pair(PreferencePair("x", None, "file", False, [USER], [GOOD], [BAD]), rewriting, 64)
    assert prepared.failed == ["template_refused"]
    assert prepared.note.startswith("x.jinja: with its completion the conversation does not begin with the prompt as it is asked")


# ---- scored pairs ------------------------------------------------------------------------------------

# Pairs from a score: their documents and continuations, and that nothing but the score distinguishes the sides.

QUALITY = FilterScore("quality", True, False, ("quality",))
TOXICITY = FilterScore("toxicity", False, True, ("toxicity",))
LIMITS = AlignConfig(pairs=40, per_document=4, max_chars=150, best=0.5, worst=0.1)


def rude_share(texts: Sequence[str]) -> np.ndarray:
    return np.array([text.count("rude") / (text.count(" ") + 1) for text in texts])


def paragraph(words: str, number: int) -> str:
    return " ".join(f"Mill {number} {words} grain of field {k}." for k in range(12))


def scored_documents(numbers: range, score: float | None = None) -> pa.Table:
    """Makes documents of two paragraphs, one of them rude in every fifth document; a document's score is its number's hundredth."""
    rows = []
    for n in numbers:
        text = paragraph("grinds", n) + "\n\n" + paragraph("grinds rude rude" if n % 5 == 0 else "keeps", n)
        value = n / 100 if score is None else score
        rows.append({"id": f"d{n}", "url": f"https://{'ab'[n % 2]}.test/{n}", "title": "", "text": text, "score": value, "language": "en"})
    return pa.Table.from_pylist(rows)


def nothing() -> Iterator[pa.Table]:
    return iter(())


def everything() -> Iterator[pa.Table]:
    return iter([scored_documents(range(60)), scored_documents(range(60, 100))])


def not_held_out(_: str) -> bool:
    return False


def test_a_score_of_documents_decides_by_documents():
    pool = find_pool(QUALITY, rude_share, everything, nothing, "s", LIMITS)
    assert (pool.unit, pool.scored, pool.good, pool.bad) == ("documents", 100, 0.49, 0.09)  # 51 from .49 on, 10 up to .09
    assert {s.source.id for s in pool.rejected} == {f"d{n}" for n in range(10)}
    assert all(s.score == s.source.score >= 0.49 for s in pool.chosen) and len(pool.chosen) == 80


def test_scores_that_are_all_alike_give_no_pairs():
    pool = find_pool(QUALITY, rude_share, lambda: iter([scored_documents(range(30), score=0.5)]), nothing, "s", LIMITS)
    assert pool == PairPool("documents", 30) and match(pool, not_held_out, 9) == []


def test_the_same_scored_pairs_in_any_shards():
    def other() -> Iterator[pa.Table]:
        return iter([scored_documents(range(40, 100)), scored_documents(range(40))])

    found = []
    for tables in (everything, other):
        pool = find_pool(TOXICITY, rude_share, tables, nothing, "s", LIMITS)
        found.append(pairs_of(TOXICITY, match(pool, not_held_out, 40), not_held_out))
    assert found[0] == found[1] and len(found[0]) == 20


def scored_task(number, length, language, host):
    document = tasks.SourceDocument(f"d{number}", f"https://{host}.test/{number}", "", "", language)
    return tasks.BuiltTask(document, "", "", "x" * length + str(number), 0.5)


scored = st.builds(scored_task, st.integers(0, 30), st.integers(60, 200), st.sampled_from(["en", "de", None]), st.sampled_from("ab"))


@settings(max_examples=60, deadline=None)
@given(st.lists(scored, max_size=30), st.lists(scored, max_size=30), st.integers(1, 20))
def test_sides_are_alike_in_all_but_the_score(chosen, rejected, wanted):
    def held_out(identifier: str) -> bool:
        return int(identifier[1:]) % 3 == 0

    matched = match(PairPool("", 0, chosen, rejected, 1.0, 0.0), held_out, wanted)
    assert len(matched) <= wanted
    assert len({bad.answer for _, bad in matched}) == len(matched)  # no text is rejected twice
    for good, bad in matched:
        lengths = sorted((len(good.answer), len(bad.answer)))
        assert lengths[1] - lengths[0] <= TOLERANCE * lengths[1]
        assert good.source.id != bad.source.id and good.source.language == bad.source.language
        assert held_out(good.source.id) == held_out(bad.source.id)
    order = [place for good, _ in matched for place, each in enumerate(chosen) if each is good]
    assert order == sorted(order)


# ---- scored alignment --------------------------------------------------------------------------------

# Alignment on pairs from a run's own classifier, with real filter steps: rejected texts and reports.

#: Documents from here on are so rude that the filter drops them.
DROPPED = 60
MAIL = "fool@liars.com"
ALIGN: dict[str, Any] = {
    "pairs": 40, "max_chars": 80, "pairs_from": ["corrupted", "rude"], "held_out": 0.3, "evaluate_every": 0, "batch": 8,
    "loop": {"threads": 1, "steps": 2, "save_every": 10},
}  # fmt: skip


def prose(number: int) -> str:
    """Returns paragraphs of kind sentences, every other document with a rude one; all rude, and with an address, for a dropped document."""
    generator = random.Random(number)

    def sentence(kind: str, words: int) -> str:
        return " ".join(generator.choice(WORDS[kind]) for _ in range(words)).capitalize() + "."

    rude = [number >= DROPPED or (number % 2 == 0 and place == 1) for place in range(3)]
    paragraphs = [" ".join(sentence(*(("rude", 12) if each else ("good", 9))) for _ in range(5)) for each in rude]
    if number >= DROPPED:
        paragraphs = [paragraph.replace(" ", f" {MAIL} ", 1) for paragraph in paragraphs]
    return "\n\n".join(paragraphs)


def crawled_documents() -> pa.Table:
    rows = [{"id": f"{n:032x}", "url": f"https://a.test/{n}", "source": "a.jsonl", "text": prose(n)} for n in range(80)]
    return pa.Table.from_pylist(rows, DOCUMENTS)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("models") / "rude", "rude", {"rude": ["rude"]}, window=10)


def filter_stage(classifier: Path, share: float = 0.5, models: Any = (), **more: Any) -> FilterStage:
    decides = {"keep_where": "low", "threshold": 2.0, "max_share": share, **more}
    each = [{**model, **decides} for model in models or ({"model": str(classifier)},)]
    return FilterStage(FilterConfig.model_validate({"steps": [{"classifier": {"models": each}}, {"pii": {}}]}))


@pytest.fixture
def run(pretrained_run: Storage, finish: Any) -> Storage:
    finish(pretrained_run, "ingest", {"data/part-00000.parquet": crawled_documents()})
    return pretrained_run


def align(**changes: Any) -> AlignStage:
    return AlignStage(AlignConfig.model_validate({**ALIGN, **changes}))


def rudeness(text: str) -> int:
    return len(set(re.findall(r"\w+", text.lower())) & set(WORDS["rude"]))


def test_rude_continuations_are_rejected_also_those_of_dropped_documents(run, execute, classifier):
    done = execute(run, filter_stage(classifier), align())
    dropped = {row["id"] for row in pq.read_table(run.path("filter/report/part-00000.parquet")).to_pylist() if not row["kept"]}
    assert dropped == {f"{n:032x}" for n in range(DROPPED, 80)}
    rows = [row for row in pq.read_table(run.path("align/report/part-00000.parquet")).to_pylist() if row["kind"] == "rude"]
    pairs = {(p["id"], p["rejected_id"]): p for p in pq.read_table(run.path("align/data/pairs.parquet")).to_pylist() if p["kind"] == "rude"}
    assert len(rows) > 10 and {row["rejected_id"] for row in rows} & dropped and not {row["id"] for row in rows} & dropped
    for row in (row for row in rows if row["kept"]):
        pair = pairs[row["id"], row["rejected_id"]]
        assert rudeness(pair["chosen"][0]["content"]) == 0 < rudeness(pair["rejected"][0]["content"])
        assert row["chosen_score"] < 0.5 < row["rejected_score"] and row["rejected_url"].startswith("https://a.test/")
        assert MAIL not in str(pair) and pair["held_out"] == row["held_out"]
        scores = score_texts(done, "rude", [pair[side][0]["content"] for side in ("chosen", "rejected")])
        assert scores == pytest.approx([row["chosen_score"], row["rejected_score"]])
    sources = json.loads(run.child("align").read_bytes("pair_sources.json"))["rude"]
    assert (sources["unit"], sources["pairs"], sources["high_is_good"]) == ("continuations", len(rows), False)
    assert max(row["chosen_score"] for row in rows) <= sources["good"] < sources["bad"] <= min(row["rejected_score"] for row in rows)
    short = f"rude: {len(rows)} of 20 pairs"
    assert (len(rows) < 20) == any(warning.startswith(short) for warning in done.manifest.tasks["pairs"].warnings)


def test_only_what_this_score_alone_dropped_can_be_rejected_and_as_it_would_have_gone_on(run, execute, classifier):
    done = execute(run, filter_stage(classifier))
    (table,) = dropped_documents(done, find_score(done, "rude"), tasks.COLUMNS)
    assert table["id"].to_pylist() == [f"{n:032x}" for n in range(DROPPED, 80)] and min(table["score"].to_pylist()) > 0.5
    assert all("email@example.com" in text and MAIL not in text for text in table["text"].to_pylist())
    done = execute(run, filter_stage(classifier, models=[{"model": str(classifier)}, {"model": str(classifier), "name": "twin"}]))
    assert list(dropped_documents(done, find_score(done, "rude"), tasks.COLUMNS)) == []


def test_other_rules_of_a_score_make_other_pairs(run, execute, classifier):
    untrained = {"loop": {"threads": 1, "steps": 0}, "pairs_from": ["rude"]}
    first = execute(run, filter_stage(classifier), align(**untrained)).manifest.tasks["pairs"].identity
    assert execute(run, filter_stage(classifier, share=1.0), align(**untrained)).manifest.tasks["pairs"].identity != first


@pytest.mark.parametrize(
    ("steps", "column", "message"),
    [
        (None, "rude", "align: rude: the recipe has no stage filter"),
        ({}, "politeness", "align: politeness: no score of that name"),
        ({"measure_only": True, "threshold": None, "max_share": None}, "rude", "align: rude: no rule of the filter stage says which"),
    ],
)
def test_scores_that_are_not_there_are_one_sentence(run, execute, classifier, steps, column, message):
    stages = [] if steps is None else [filter_stage(classifier, **steps)]
    with pytest.raises(InputError, match=message):
        execute(run, *stages, align(pairs_from=[column]))


def test_too_few_scores_are_one_sentence_with_the_counts(run, execute, finish, classifier):
    finish(run, "ingest", {"data/part-00000.parquet": crawled_documents().slice(1, 1)})  # of which none is rude
    with pytest.raises(NothingKept, match=r"none of 0 pairs can be learned from. rude: 0 of 40 pairs; \d continuations have a score, with"):
        execute(run, filter_stage(classifier), align(pairs_from=["rude"]))


@pytest.fixture
def says_yes_to_all(tmp_path: Path) -> Path:
    return make_classifier(tmp_path / "models/rude", "rude", {"rude": ["rude"]}, window=10, threshold=0.0001)


def test_a_score_that_fires_on_nearly_all_makes_no_pairs(run, execute, says_yes_to_all):
    measured = FilterStage(FilterConfig.model_validate({"steps": [{"toxicity": {"model": str(says_yes_to_all), "name": "rude"}}]}))
    done = execute(run, measured, align(loop={"threads": 1, "steps": 0}))
    said = r"no pairs of a score: rude cannot tell: it fires on 80 of 80 documents \(100\.0%\), so it is left out\."
    assert any(re.fullmatch(said, warning) for warning in done.manifest.tasks["pairs"].warnings)
    kinds = {row["kind"] for row in pq.read_table(run.path("align/report/part-00000.parquet")).to_pylist()}
    assert kinds and "rude" not in kinds
    assert json.loads(run.child("align").read_bytes("pair_sources.json"))["rude"]["pairs"] == 0
    with pytest.raises(NothingKept, match="none of 0 pairs can be learned from. .*rude cannot tell: it fires on 80 of 80 documents"):
        execute(run, measured, align(pairs_from=["rude"]))


def test_a_score_that_only_ranks_makes_pairs(run, execute, tmp_path):
    folder = make_classifier(tmp_path / "models/rude", "rude", {"rude": ["rude"]})
    described = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**described, "ranks": True}))
    stage = FilterStage(FilterConfig.model_validate({"steps": [{"classifier": {"model": str(folder), "keep_where": "low", "keep": 1.0}}]}))
    execute(run, stage, align(loop={"threads": 1, "steps": 0}))
    kinds = [row["kind"] for row in pq.read_table(run.path("align/report/part-00000.parquet")).to_pylist()]
    assert "rude" in kinds


@pytest.mark.parametrize("given", [{"pairs_from": []}, {"best": 0}, {"pairs_from": ["a", "a"]}, {"best": 0.95}])
def test_options_that_make_no_sense_are_refused(given):
    with pytest.raises(ValidationError):
        AlignConfig.model_validate(given)
