"""Tests an index of earlier crawls: the union that it keeps, a run's changes to it, and refused inputs."""

import json
import random
import shutil
from pathlib import Path

import pytest
from dedup_runs import words
from stage_runs import again

from corpusmill.dedup.index import CrawlIndex, decisions, kept_ids
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import read_table

CRAWLS = "ABC"


def crawls(seed: int) -> dict[str, list[list[dict]]]:  # type: ignore[type-arg]
    """Makes three crawls of two shards with families of copies, near copies in chains, and captures of one address."""
    draw = random.Random(seed)
    found: dict[str, list[list[dict]]] = {name: [[], []] for name in CRAWLS}  # type: ignore[type-arg]
    for family in range(9):
        text = words(60, 100 * seed + family)
        for step in range(9):
            row = {"text": " ".join(text), "url": f"http://{family}.test/{step}", "timestamp": f"2024-01-{draw.randrange(1, 28):02d}"}
            if step in (4, 7):
                row["url"] = f"HTTP://{(family + step) % 9}.test/3#{step}"  # a capture of a page of this or another family
            found[draw.choice(CRAWLS)][draw.randrange(2)].append(row | {"source": f"s{family % 2}"})
            if step % 3 != 2:  # otherwise the next one is an exact copy
                text = [*text]
                for _ in range(draw.randrange(1, 3)):
                    text[draw.randrange(60)] = f"new{draw.randrange(10**6)}"
                text += words(draw.randrange(2), draw.randrange(10**6))
    return found


def kept_of(result) -> set[str]:  # type: ignore[no-untyped-def]
    return {row["id"] for row in result.data}


@pytest.mark.parametrize(("seed", "config"), [(1, {}), (2, {"url": {"enabled": True}, "keep": ["newest", "longest"]})])
def test_the_union_is_that_of_one_run_whatever_the_order(seed: int, config: dict, dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def, type-arg]
    rows = crawls(seed)
    config = {"minhash": {"bands": 20, "rows": 4}} | config
    whole = dedup([shard for name in CRAWLS for shard in rows[name]], **config)
    if "url" in config:
        assert whole.counts["url"] > 3
    assert whole.counts["near"] > 10 and whole.counts["exact"] > 3
    restored = replaced = 0
    for order in (CRAWLS, CRAWLS[::-1]):
        index, earlier, before = str(tmp_path / order), set[str](), set[str]()
        for name in order:
            result = dedup(rows[name], index={"path": index, "name": name}, **config)
            changes = read_table(result.run.storage, "earlier/changes.parquet").to_pylist()
            after = kept_ids(index)
            assert {row["id"] for row in changes if row["kept"]} == (after - before) & earlier
            assert {row["id"] for row in changes if not row["kept"]} == before - after
            assert kept_of(result) == {row["id"] for row in result.report} & after
            restored += sum(row["kept"] for row in changes)
            replaced += sum(not row["kept"] for row in changes)
            earlier |= {row["id"] for row in result.report}
            before = after
        assert after == kept_of(whole), order
    assert restored and replaced


def test_what_a_run_changes_names_the_better_copy_and_its_place(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text, index = words(60, 1), {"path": str(tmp_path / "index")}
    first = dedup([[{"text": " ".join(text), "url": "old"}, {"text": "another", "url": "x"}]], index={**index, "name": "one"})
    second = dedup([[{"text": "more", "url": "y"}], [{"text": " ".join([*text, "longer"]), "url": "new"}]], index={**index, "name": "two"})
    changes = read_table(second.run.storage, "earlier/changes.parquet").to_pylist()
    old, new = first.report[0]["id"], second.report[1]["id"]
    assert changes == [{"entry": "one", "shard": "part-00000", "row": 0, "id": old, "kept": False, "kept_id": new, "kept_in": None}]
    assert [row["kept"] for row in second.report] == [True, True]
    assert second.run.stage.summary(second.run)["earlier runs"] == "1 document replaced by better copies, 0 restored"
    third = dedup([[{"text": " ".join(text), "url": "third"}]], index={**index, "name": "three"})
    row = third.report[0]
    assert (row["kept"], row["kept_id"], row["kept_in"], row["verified"]) == (False, new, "two", "exact_jaccard")
    assert row["similarity"] == 56 / 57


def test_without_texts_signatures_decide_across_runs(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text, index = words(60, 1), {"path": str(tmp_path / "index"), "texts": False}
    dedup([[{"text": " ".join([*text, "longer"]), "url": "old"}]], index={**index, "name": "one"})
    new = [
        {"text": " ".join(text), "url": "new"},
        {"text": " ".join(words(60, 2)), "url": "u"},
        {"text": " ".join(words(60, 2)[1:]), "url": "v"},
    ]
    result = dedup([new], index={**index, "name": "two"})
    assert [(row["kept"], row["verified"]) for row in result.report] == [
        (False, "minhash_estimate"),
        (True, None),
        (False, "exact_jaccard"),
    ]
    assert abs(result.report[0]["similarity"] - 56 / 57) < 0.06
    assert not (tmp_path / "index/one/texts").exists()


def test_under_fixed_every_run_keeps_what_no_earlier_one_has(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows, index = crawls(3), str(tmp_path / "index")
    kept: set[str] = set()
    for name in CRAWLS:
        result = dedup(rows[name], index={"path": index, "name": name, "earlier": "fixed"}, url={"enabled": True})
        assert read_table(result.run.storage, "earlier/changes.parquet").num_rows == 0
        kept |= kept_of(result)
        assert kept_ids(index) == kept
        for row in result.report:
            assert row["kept_id"] in kept and (row["kept_in"] is None) == (row["kept_id"] in kept_of(result))
    assert len(kept) < sum(len(shard) for name in CRAWLS for shard in rows[name]) / 2


def test_the_same_run_again_does_nothing_and_puts_back_what_is_lost(dedup, tmp_path: Path, tree) -> None:  # type: ignore[no-untyped-def]
    rows, index = crawls(5), tmp_path / "index"
    runs = {name: dedup(rows[name], index={"path": str(index), "name": name}).run for name in CRAWLS}
    before = tree(index)
    for name in reversed(CRAWLS):
        assert again(runs[name]).performed == 0
    assert tree(index) == before
    shutil.rmtree(index / "C")
    assert again(runs["C"]).performed == 1
    assert tree(index) == before
    shutil.rmtree(index)
    for name in CRAWLS:
        assert again(runs[name]).performed == 1
    assert tree(index) == before


def test_an_entry_taken_out_of_the_middle_is_forgotten_alone(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    for name, text in (("one", "first"), ("two", "second"), ("three", "third")):
        dedup([[{"text": text, "url": f"a/{name}"}]], index={**index, "name": name})
    shutil.rmtree(tmp_path / "index/two")
    result = dedup([[{"text": t, "url": "z"} for t in ("first", "second", "third")]], index={**index, "name": "four"})
    assert [row["cluster_size"] for row in result.report] == [2, 1, 2]
    assert [entry.number for entry in CrawlIndex(index["path"]).entries()] == [0, 2, 3]


def test_a_run_that_only_reads_the_index_leaves_it(dedup, tmp_path: Path, tree) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    dedup([["a text"]], index={**index, "name": "one"})
    before = tree(tmp_path / "index")
    result = dedup([[{"text": "a text", "url": "z"}, "b"]], index={**index, "name": "two", "extend": False})
    assert result.report[0]["cluster_size"] == 2
    assert tree(tmp_path / "index") == before
    assert json.loads((tmp_path / "index/index.json").read_text())["parameters"]["dedup.minhash.bands"] == 14
    assert decisions(CrawlIndex(index["path"]).entries()).num_rows == 0


def test_a_run_and_an_index_on_a_store_that_is_no_disk(dedup) -> None:  # type: ignore[no-untyped-def]
    index = {"path": "memory://test-index/index"}
    for name, cluster_size in (("one", 1), ("two", 2)):
        rows = [{"text": " ".join(words(60, 1)), "url": name}, {"text": "short", "url": "same"}]
        result = dedup([rows[:1], rows[1:]], folder=f"memory://test-index/{name}", index=index)
        assert [row["cluster_size"] for row in result.report] == [cluster_size] * 2
        assert again(result.run).performed == 0
    assert [entry.name for entry in CrawlIndex(index["path"]).entries()] == ["one", "two"]
    assert len(kept_ids(index["path"])) == 2


def test_other_parameters_are_refused_with_both_named(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    dedup([["a"]], index={**index, "name": "one"})
    with pytest.raises(InputError, match=r"dedup\.minhash\.bands is 14 there and 20 here; dedup\.minhash\.seed is 1 there and 2 here"):
        dedup([["b"]], index={**index, "name": "two"}, minhash={"bands": 20, "seed": 2})
    with pytest.raises(InputError, match=r"dedup\.index\.earlier is 'union' there and 'fixed' here"):
        dedup([["b"]], index={**index, "name": "two", "earlier": "fixed"})
    for option, value in (("threshold", 0.8), ("keep", "newest"), ("max_cluster", 5), ("similarity", "containment")):
        with pytest.raises(InputError, match=rf"dedup\.{option} is .* there and {value!r} here"):
            dedup([["b"]], index={**index, "name": "two"}, **{option: value})
    dedup([["b"]], index={**index, "name": "two"}, by="host", alarm_share=0.1)
    assert [entry.name for entry in CrawlIndex(index["path"]).entries()] == ["one", "two"]


def test_a_name_that_another_run_has_is_refused(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index"), "name": "same"}
    first = dedup([["a"]], index=index)
    with pytest.raises(InputError, match=r"index/same: this entry of the index is of a run with other documents; give this one"):
        dedup([["b"]], index=index)
    assert kept_ids(index["path"]) == {first.report[0]["id"]}
    for name in ("a/b", ".hidden", ".."):
        with pytest.raises(InputError, match=r"dedup\.index\.name: '.*' can't be the name of a folder"):
            dedup([["b"]], index={**index, "name": name})


@pytest.mark.parametrize(("file", "content"), [("entry.json", b"{broken"), ("entry.json", b"[]"), ("keys/part-00000.exact.arrow", None)])
def test_a_broken_entry_is_one_sentence(file: str, content: bytes | None, dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    dedup([["a"]], index={**index, "name": "one"})
    path = tmp_path / "index/one" / file
    path.write_bytes(content) if content else path.unlink()
    with pytest.raises(InputError, match=f"index/one/{file}: "):
        dedup([["b"]], index={**index, "name": "two"})
