"""Tests the tokens stage with a mixture: shares, epochs, the report, and that nothing else decides them."""

import json
from collections import Counter

import numpy as np
import pytest
from token_runs import content, report, splits, tokens_stage

from corpusmill.pipeline.manifest import Manifest
from corpusmill.tokenize.encode import Encoder

MIXTURE = {
    "budget_tokens": 200_000,
    "components": [
        {"name": "good", "where": {"quality": {"min": 0.5}}, "weight": 3, "max_epochs": 8},
        {"name": "rest", "where": {"language": "en"}, "weight": 1},
    ],
}


@pytest.fixture(scope="module")
def texts(english):
    return [text[:1500] for text in english[:180]]


@pytest.fixture(scope="module")
def mixed(make_documents, texts):
    """Every third document is good; every fifth of the others is in no component; two are empty."""
    texts = ["", *texts, ""]
    quality = [0.9 if n % 3 == 0 else 0.1 for n in range(len(texts))]
    language = ["en" if n % 5 else "de" for n in range(len(texts))]
    return make_documents(texts, quality=quality, language=language)


OPTIONS = {"shard_tokens": 30_000, "validation_share": 0.1, "mixture": MIXTURE}


@pytest.fixture(scope="module")
def run(shared_mill, mixed):
    return shared_mill([mixed.slice(0, 50), mixed.slice(50, 0), mixed.slice(50)], **OPTIONS)


def plan_of(run):
    return json.loads(run.read_bytes("tokens/plan.json"))


def index_rows(run, split):
    shards = splits(run)[split]
    return [row for number in range(len(shards.shards)) for row in shards.index(number).to_pylist()]


def component(row):
    return "good" if row["quality"] >= 0.5 else "rest" if row["language"] == "en" else None


def test_shares_epochs_and_copies(run, mixed):
    documents = {row["id"]: row for row in mixed.to_pylist()}
    encoder = Encoder.read(run, "tokenizer/tokenizer.json")
    sizes = {name: len(encoder.encode(row["text"])) + 1 for name, row in documents.items() if row["text"]}
    train, validation = content(run)["train"], content(run)["validation"]
    times = Counter(name for name, _ in train)
    by_component = {name: Counter() for name in ("good", "rest")}
    for name, count in times.items():
        by_component[component(documents[name])][count] += 1
    there = dict.fromkeys(by_component, 0)
    for name, size in sizes.items():
        if component(documents[name]) and name not in dict(validation):
            there[component(documents[name])] += size
    for share, wanted in zip(plan_of(run)["mixture"], (150_000, 50_000), strict=True):
        taken = sum(times[name] * size for name, size in sizes.items() if component(documents[name]) == share["name"])
        assert (share["wanted"], share["there"], share["tokens"], share["short"]) == (wanted, there[share["name"]], taken, 0)
        assert abs(taken - wanted) <= max(sizes.values()) / 2  # a bucket holds one document here
        counts = set(by_component[share["name"]])
        assert counts <= {share["whole"], share["whole"] + 1} and max(counts) > 0
    assert set(by_component["good"]) != {1} and max(by_component["good"]) >= 2
    assert len({name for name, _ in validation}) == len(validation) > 5
    assert all(component(documents[name]) for name, _ in validation)
    assert sum(shard.tokens for shard in splits(run)["train"].shards) == sum(s["tokens"] for s in plan_of(run)["mixture"])


def test_copies_are_rows_of_the_index_at_places_of_their_own(run):
    rows = index_rows(run, "train")
    copies: dict[str, list[int]] = {}
    for row in rows:
        copies.setdefault(row["id"], []).append(row["copy"])
    assert all(sorted(found) == list(range(len(found))) for found in copies.values())
    several = [name for name, found in copies.items() if len(found) > 1]
    assert len(several) > 20
    firsts, seconds = ({row["id"]: place for place, row in enumerate(rows) if row["copy"] == copy} for copy in (0, 1))
    assert abs(np.corrcoef([firsts[name] for name in several], [seconds[name] for name in several])[0, 1]) < 0.5
    assert all(row["copy"] == 0 for row in index_rows(run, "validation"))


def test_one_report_row_for_every_document_whatever_becomes_of_it(run, mixed):
    rows = report(run).to_pylist()
    assert [row["id"] for row in rows] == mixed["id"].to_pylist()
    train, validation = (Counter(name for name, _ in content(run)[split]) for split in ("train", "validation"))
    shards = {split: {} for split in ("train", "validation")}
    for split, found in shards.items():
        for number in range(len(splits(run)[split].shards)):
            for row in splits(run)[split].index(number).to_pylist():
                found.setdefault(row["id"], {})[row["copy"]] = number
    failed = Counter()
    for row, document in zip(rows, mixed.to_pylist(), strict=True):
        copies = train[row["id"]] + validation[row["id"]]
        assert (row["copies"], row["kept"], row["component"]) == (copies, copies > 0, component(document))
        wrong = ([] if document["text"] else ["empty"]) + ([] if component(document) else ["mixture"])
        assert row["failed"] == (wrong or ([] if copies else ["budget"]))
        assert row["split"] == (("validation" if validation[row["id"]] else "train") if copies else None)
        places = shards[row["split"]][row["id"]] if copies else {}
        assert row["shards"] == [places[copy] for copy in range(copies)]
        assert row["chars_out"] == (len(document["text"]) if copies else 0)
        failed.update(row["failed"])
    assert failed["empty"] == 2 and failed["mixture"] == 24


def test_a_small_budget_takes_some_documents_once_and_validation_is_the_same(run, copy_of, execute):
    small = copy_of(run)
    execute(small, tokens_stage(**{**OPTIONS, "mixture": {**MIXTURE, "budget_tokens": 20_000}}))
    assert {row["copy"] for row in index_rows(small, "train")} == {0}
    failed = Counter(name for row in report(small).to_pylist() for name in row["failed"])
    assert failed["budget"] > 50
    assert 18_000 < splits(small)["train"].total < 22_000
    assert content(small)["validation"] == content(run)["validation"]


def test_layout_of_the_documents_plays_no_part(run, mill, mixed):
    backwards = mixed.take(list(range(mixed.num_rows - 1, -1, -1)))
    many = mill([backwards.slice(0, 3), backwards.slice(3, 90), backwards.slice(93)], **OPTIONS)
    assert content(run) == content(many)
    assert report(run).sort_by("id").equals(report(many).sort_by("id"))


def test_another_weight_encodes_and_matches_nothing_again(run, copy_of, execute):
    run = copy_of(run)
    before = content(run)
    other = {**MIXTURE, "components": [{**MIXTURE["components"][0], "weight": 1}, MIXTURE["components"][1]]}
    done = execute(run, tokens_stage(**{**OPTIONS, "mixture": other}))
    rows = {row.task for row in Manifest(run.child("tokens")).rows()}
    assert done.performed == len(rows) - 6  # three parts and their components are taken over
    assert content(run) != before
    execute(run, tokens_stage(**OPTIONS))
    assert content(run) == before


def test_a_budget_that_max_epochs_do_not_allow_is_said(run, copy_of, execute):
    run, stage = copy_of(run), tokens_stage(mixture={**MIXTURE, "budget_tokens": 10**9}, validation_share=0.1)
    execute(run, stage)
    good, rest = plan_of(run)["mixture"]
    assert (good["epochs"], rest["epochs"]) == (8.0, 4.0) and good["short"] == good["wanted"] - good["tokens"] > 0
    warnings = Manifest(run.child("tokens")).tasks["plan"].warnings
    assert [w.split(" gives")[0] for w in warnings] == ["the component good", "the component rest"]
    said = stage.summary(execute(run, stage))["good"]
    assert "8.00 epochs" in said and "short of its share" in said


#: FineWeb-2's weights for Italian (misc/rehydration/README.md of huggingface/fineweb-2).
ITALIAN = {
    1: 1, 2: 3, 3: 4, 4: 5, 5: 6, 7: 7, 8: 8, 11: 9, 17: 10, 26: 9, 31: 8,
    46: 7, 52: 6, 63: 5, 75: 4, 96: 3, 118: 2, 123: 3, 125: 2, 145: 1,
}  # fmt: skip


def test_rehydration_repeats_documents_as_fineweb_2_does(shared_mill, make_documents, texts):
    every = [1]  # FineWeb-2's own loop
    for size in range(1, max(ITALIAN) + 1):
        every.append(ITALIAN.get(size, every[-1]))
    sizes = [1 + (7 * n) % 160 for n in range(len(texts))]
    documents = make_documents(texts, minhash_cluster_size=sizes)
    options = {"validation_share": 0.1, "rehydrate": {"copies": ITALIAN, "column": "minhash_cluster_size"}}
    run = shared_mill([documents.slice(0, 70), documents.slice(70)], **options)
    copies = Counter(name for name, _ in content(run)["train"])
    held_out = Counter(name for name, _ in content(run)["validation"])
    wanted = {row["id"]: every[min(row["minhash_cluster_size"], len(every) - 1)] for row in documents.to_pylist()}
    assert copies == {name: times for name, times in wanted.items() if name not in held_out} and set(held_out.values()) == {1}
    assert {row["copies"] for row in report(run).to_pylist() if row["split"] == "train"} == set(wanted.values())
