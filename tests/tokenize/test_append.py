"""Tests appending to a set of token shards: all documents once, none in both splits, and no damage by a kill."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from token_runs import content, splits, tokens_stage

from corpusmill.dedup.cluster_table import EARLIER
from corpusmill.pipeline import lease
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import ShardSet, TokenShards
from corpusmill.tokenize.append import append

OPTIONS = {"shard_tokens": 20_000, "validation_share": 0.15}


@pytest.fixture(scope="module")
def first(shared_mill, make_documents, english) -> Storage:
    return shared_mill([make_documents(english[:100], cluster_id=["one"] * 3 + [None] * 97)], "first", **OPTIONS)


@pytest.fixture(scope="module")
def second(tmp_path_factory, publish_run, execute, first, make_documents, english) -> Storage:
    """Makes a run of other documents with the tokenizer of the first."""
    run = publish_run([other_documents(make_documents, english[100:180])], tmp_path_factory.mktemp("append") / "second")
    return tokenized_like(first, run, execute)


def tokenized_like(first: Storage, run: Storage, execute, **options) -> Storage:
    shutil.copytree(first.path("tokenizer"), run.path("tokenizer"))
    execute(run, tokens_stage(**{**OPTIONS, **options}))
    return run


@pytest.fixture
def another(make_run, execute, first):
    """Makes a further run with the tokenizer of the first."""
    return lambda documents, name="another", **options: tokenized_like(first, make_run([documents], name), execute, **options)


def other_documents(make_documents, texts, number=1000, **columns):
    """Makes documents with their own URLs, and so ids."""
    table = make_documents([*[""] * number, *texts]).slice(number)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    return table


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"
    }


def test_a_set_is_the_row_of_its_runs(first, second, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    made = append(str(folder), first.root)
    monkeypatch.setattr(lease, "TTL", 1.0)
    (folder / lease.LEASE).write_bytes(b"of a process that was cut off")
    said: list[str] = []
    added = append(str(folder), second.root, on_message=said.append)
    assert said == [f"{folder}: another process holds this folder; if it shows no activity for 1 s, this command goes on."]
    whole = content(Storage(str(tmp_path)), "set")
    one, two = content(first), content(second)
    for split, before, now in zip(("train", "validation"), made, added, strict=True):
        assert whole[split] == one[split] + two[split]
        assert (before.documents, now.documents, now.left_out) == (len(one[split]), len(two[split]), 0)
        shards = TokenShards(folder / split)
        assert now.total == shards.total == splits(first)[split].total + splits(second)[split].total
        count = len(splits(first)[split].shards)
        assert [shard.run for shard in shards.shards] == [first.root] * count + [second.root] * (len(shards.shards) - count)
        assert [shard.file for shard in shards.shards] == [f"tokens-{n:05d}.bin" for n in range(len(shards.shards))]
    before = tree(folder)
    assert [(split.shards, split.left_out) for split in append(str(folder), first.root)] == [(0, 0), (0, 0)]
    assert tree(folder) == before


def test_a_set_is_packed_as_it_began(another, execute, first, copy_of, make_documents, english, tmp_path):
    first = copy_of(first)
    execute(first, tokens_stage(**OPTIONS, pack_lengths=[64, 256]))
    second = another(other_documents(make_documents, english[100:180]), pack_lengths=[512])
    third = another(pa.concat_tables([make_documents(english[:50]), other_documents(make_documents, english[180:220], 2000)]), "third")
    folder = tmp_path / "set"
    append(str(folder), first.root)
    append(str(folder), second.root)
    append(str(folder), third.root, skip_known=True)
    for split in ("train", "validation"):
        shards = TokenShards(folder / split)
        shards.verify()
        assert [found["length"] for found in shards.description.packing()] == [64, 256]
        for length in (64, 256):
            for number, shard in enumerate(shards.shards):
                assert shards.plan(number, length).tokens.sum() == shard.tokens
        files = {plan.file for shard in shards.shards for plan in shard.plans}
        assert {path.name for path in (folder / split).glob("*.pack-*")} == files


def test_a_killed_append_goes_on_and_readers_never_see_half_a_set(first, second, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    write, calls = Storage.write_atomic, 0

    def dying(self, relative):
        nonlocal calls
        calls += 1
        if calls == stop:
            raise Killed
        return write(self, relative)

    append(str(tmp_path / "whole"), first.root)
    shutil.copytree(tmp_path / "whole", tmp_path / "begun")
    append(str(tmp_path / "whole"), second.root)
    expected, killed = tree(tmp_path / "whole"), 0
    for stop in (1, 2, 4, 6, 8, 10, 12):
        folder, calls = Path(shutil.copytree(tmp_path / "begun", tmp_path / f"set{stop}")), 0
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "write_atomic", dying)
            try:
                append(str(folder), second.root)
            except Killed:
                killed += 1
                for split in ("train", "validation"):
                    TokenShards(folder / split).verify()
        append(str(folder), second.root)
        assert tree(folder) == expected
    assert killed >= 5


def test_documents_that_are_there_are_refused_or_left_out(first, another, make_documents, english, tmp_path):
    second = another(make_documents([*english[:40], *english[150:180]]))  # by the same seed, the 40 of the first run are split alike
    folder = tmp_path / "set"
    append(str(folder), first.root)
    before = tree(folder)
    with pytest.raises(InputError, match=r"set: has 40 of the 70 documents of .*another already; --skip-known leaves them out"):
        append(str(folder), second.root)
    assert tree(folder) == before
    added = append(str(folder), second.root, skip_known=True)
    assert sum(split.left_out for split in added) == 40 and sum(split.documents for split in added) == 30
    whole = content(Storage(str(tmp_path)), "set")
    one, two = content(first), content(second)
    for split in ("train", "validation"):
        old = {name for name, _ in one[split]}
        assert whole[split] == one[split] + [document for document in two[split] if document[0] not in old]


def test_what_is_held_out_stays_out(first, another, make_documents, english, tmp_path):
    """With another seed the second run splits differently; clusters count as ids do."""
    second = another(make_documents(english[:100]), seed=5)
    folder = tmp_path / "set"
    append(str(folder), first.root)
    sides = {name: split for split, found in content(first).items() for name, _ in found}
    crossed = [name for split, found in content(second).items() for name, _ in found if sides[name] != split]
    assert len(crossed) > 5
    with pytest.raises(
        InputError, match=rf"has {100 - len(crossed)} of the 100 documents .* and {len(crossed)} with a near copy in its other"
    ):
        append(str(folder), second.root)
    append(str(folder), second.root, skip_known=True)
    assert content(Storage(str(tmp_path)), "set") == content(first)


def test_the_like_of_a_held_out_document_stays_out(first, another, make_documents, english, tmp_path):
    (side,) = {split for split, found in content(first).items() for name, _ in found if name in first_three(first)}
    other = "validation" if side == "train" else "train"
    member = first_three(first)[0]
    new = other_documents(make_documents, english[100:160], cluster_id=["one", member, *[None] * 58])
    run = another(new, seed=6)  # with which it puts both there
    assert set(new["id"].to_pylist()[:2]) <= {name for name, _ in content(run)[other]}
    append(str(tmp_path / "set"), first.root)
    with pytest.raises(InputError, match=r"has 0 of the 60 documents .*, and 2 with a near copy in its other split"):
        append(str(tmp_path / "set"), run.root)
    added = append(str(tmp_path / "set"), run.root, skip_known=True)
    assert {split.split: split.left_out for split in added} == {other: 2, side: 0}
    assert not set(new["id"].to_pylist()[:2]) & {name for name, _ in content(Storage(str(tmp_path)), "set")[other]}


def first_three(run: Storage) -> list[str]:
    rows = [row for shards in splits(run).values() for number in range(len(shards.shards)) for row in shards.index(number).to_pylist()]
    return [row["id"] for row in rows if row["cluster_id"] == "one"]


def test_what_replaced_a_held_out_document_of_an_earlier_run_stays_out(first, second, copy_of, tmp_path):
    second = copy_of(second)
    train = content(second)["train"][0][0]
    held = content(first)["validation"][0][0]
    schema = pa.schema([EARLIER.field(name) for name in ("id", "kept_id", "full_cluster")])  # as dedup writes them
    table = pa.table({"id": [held, held], "kept_id": [train, held], "full_cluster": [None, None]}, schema=schema)
    publish(second, "dedup/earlier/part-00000.parquet", table)
    append(str(tmp_path / "set"), first.root)
    with pytest.raises(InputError, match="and 1 with a near copy in its other split"):
        append(str(tmp_path / "set"), second.root)


def test_another_tokenizer_is_refused(first, mill, make_documents, foreign, tmp_path):
    append(str(tmp_path / "set"), first.root)
    second = mill([make_documents(foreign)], "second")
    with pytest.raises(InputError, match=r"train/shards\.json: tokens of another tokenizer than those of .*set/train"):
        append(str(tmp_path / "set"), second.root)


def test_an_end_of_documents_that_differs_is_refused(first, another, make_documents, english, tmp_path):
    append(str(tmp_path / "set"), first.root)
    second = another(make_documents(english[100:140]), end_of_text="<|im_end|>")
    assert ShardSet.read(second.child("tokens/train")).end_of_text_id == 3
    assert {ids[-1] for found in content(second).values() for _, ids in found} == {3}
    with pytest.raises(InputError, match=r"tokens of another end of documents .*\(end_of_text_id 3, there 0\)"):
        append(str(tmp_path / "set"), second.root)


def test_a_runs_own_folder_is_no_set(first, second):
    with pytest.raises(InputError, match="belongs to a run, which would undo it"):
        append(first.path("tokens"), second.root)


def test_a_run_without_finished_tokens_is_refused(first, make_run, make_documents, tmp_path):
    with pytest.raises(InputError, match="neither a run nor a set of token shards"):
        append(str(tmp_path / "set"), make_run([make_documents(["x"])], "new").root)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("ending", "damage"), [("bin", lambda content: content[:-1] + b"\1"), ("index.parquet", lambda content: content[:100])]
)
def test_a_shard_that_was_changed_is_not_copied_in_part(first, another, make_documents, english, tmp_path, ending, damage):
    append(str(tmp_path / "set"), first.root)
    second = another(make_documents([*english[:40], *english[150:180]]), shard_tokens=10**6)
    before = tree(tmp_path / "set")
    path = Path(second.path(f"tokens/train/tokens-00000.{ending}"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"tokens-00000\.{ending}: not (the file that was written|a readable Parquet file)"):
        append(str(tmp_path / "set"), second.root, skip_known=True)
    assert tree(tmp_path / "set") == before


def test_repeated_copies_go_with_their_document(first, another, make_documents, english, tmp_path):
    mixture = {"budget_tokens": 10**6, "components": [{"name": "all", "weight": 1, "max_epochs": 2}]}
    second = another(make_documents([*english[:10], *english[150:180]]), mixture=mixture)
    append(str(tmp_path / "set"), first.root)
    append(str(tmp_path / "set"), second.root, skip_known=True)
    found = [name for name, _ in content(Storage(str(tmp_path)), "set")["train"]]
    old = {name for name, _ in content(first)["train"]}
    times = {found.count(name) for name in set(found) - old}
    assert times == {2} and max(found.count(name) for name in old) == 1
    assert json.loads((tmp_path / "set" / "train" / "shards.json").read_text())["documents"] == len(found)
