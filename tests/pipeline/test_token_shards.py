"""Tests token shards: they are read back as written, every token finds its document, and damage is reported in one sentence."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_sets import random_documents, write_token_set

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import in_parquet, read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, ShardSet, TokenShards, shard_names

DOCUMENTS = [[[5, 6, 0], [7, 0]], [[8, 9, 10, 11, 0]], [[0], [300, 0], [12, 13, 14, 0]]]  # by shard; 0 ends a document


def write_set(folder, shards=DOCUMENTS, **options):
    return write_token_set(folder, shards, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(tmp_path)
    return tmp_path


def test_round_trip(folder):
    shards = TokenShards(folder, "f" * 64)
    flat = [token for documents in DOCUMENTS for document in documents for token in document]
    assert len(shards) == shards.total == len(flat) == 17
    assert shards.utf8_bytes == 170 and shards.description.documents == 6
    assert shards.window(0, len(flat)).tolist() == flat
    assert shards.starts.tolist() == [0, 5, 10, 17]
    assert shards.tokens(2).tolist() == [0, 300, 0, 12, 13, 14, 0]
    assert (folder / "tokens-00000.bin").read_bytes() == b"\x05\0\x06\0\0\0\x07\0\0\0"  # little-endian 16 bit, nothing else
    assert shards.shards[1].sha256 == hashlib.sha256((folder / "tokens-00001.bin").read_bytes()).hexdigest()
    shards.verify()


def test_large_vocabularies_are_32_bit(tmp_path):
    write_set(tmp_path, [[[100_000, 0]]], vocabulary_size=128_256)
    assert (tmp_path / "tokens-00000.bin").read_bytes() == (100_000).to_bytes(4, "little") + bytes(4)
    assert TokenShards(tmp_path).window(0, 2).tolist() == [100_000, 0]


SETS = st.lists(st.lists(st.lists(st.integers(1, 4095), max_size=6).map(lambda ids: [*ids, 0]), max_size=5), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(sets=SETS, data=st.data())
def test_windows_and_addresses_are_those_of_the_flat_row(tmp_path_factory, sets, data):
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, sets)
    shards = TokenShards(folder)
    shards.verify()
    flat = [
        (token, f"{number}/{row}") for number, documents in enumerate(sets) for row, document in enumerate(documents) for token in document
    ]
    start = data.draw(st.integers(0, len(flat)))
    length = data.draw(st.integers(0, len(flat) - start))
    assert shards.window(start, length).tolist() == [token for token, _ in flat[start : start + length]]
    assert [found.id for found in shards.documents_of(start, length)] == list(
        dict.fromkeys(name for _, name in flat[start : start + length])
    )
    for position in range(start, start + length):
        assert shards.locate(*shards.shard_of(position)).id == flat[position][1]


def edit(folder, **changes):
    path = folder / SHARDS_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_shard(folder, **changes):
    shards = json.loads((folder / SHARDS_FILE).read_text())["shards"]
    edit(folder, shards=[{**shards[0], **changes}, *shards[1:]])


def rewrite_index(folder, number, change):
    name = shard_names(number)[1]
    table = change(read_table(Storage(str(folder)), name))
    (folder / name).write_bytes(in_parquet(table))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / SHARDS_FILE).unlink(), r"shards\.json: no such file, so .* holds no token shards"),
        (lambda f: (f / SHARDS_FILE).write_text("{"), r"shards\.json: not a description of token shards"),
        (lambda f: edit(f, more=1), r"shards\.json: not a description of token shards"),
        (lambda f: edit(f, tokens=18), r"shards\.json: the total of tokens is not the sum"),
        (lambda f: edit(f, dtype="uint32"), r"shards\.json: tokens of type uint32 do not fit a vocabulary of 4096"),
        (lambda f: edit_shard(f, file="../tokens-00000.bin"), r"shards\.json: not a description of token shards"),
        (lambda f: (f / "tokens-00001.bin").unlink(), r"tokens-00001\.bin: this token shard is missing"),
    ],
)
def test_damage_is_seen_on_opening(folder, damage, sentence):
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        TokenShards(folder)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda f: (f / "tokens-00001.bin").write_bytes(bytes(10)),
            r"tokens-00001\.bin: this token shard is not .* \(its sha256 differs\)",
        ),
        (lambda f: rewrite_index(f, 2, lambda t: t.slice(1)), r"tokens-00002\.index\.parquet: this index is not .* \(its sha256 differs\)"),
    ],
)
def test_damage_is_seen_on_verifying(folder, damage, sentence):
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        TokenShards(folder).verify()


def test_plans_are_those_of_the_set(tmp_path):
    described = write_token_set(tmp_path, random_documents(3, 40, 50), pack=(64, 16))
    shards = TokenShards(tmp_path)
    assert ShardSet.read(shards.storage) == described
    shards.verify()
    raw = json.loads((tmp_path / SHARDS_FILE).read_text())
    assert [found["length"] for found in raw["packing"]] == [16, 64]
    for found in raw["packing"]:
        rows = sum(shards.packed_rows(number, found["length"]) for number in range(3))
        empty = rows * found["length"] - len(shards)
        assert (found["rows"], found["padding"], found["waste"]) == (rows, empty, empty / (rows * found["length"]))
        for number, shard in enumerate(shards.shards):
            plan = shards.plan(number, found["length"])
            assert plan.tokens.sum() == shard.tokens and plan.row[-1] + 1 == shards.packed_rows(number, found["length"])
    with pytest.raises(
        InputError,
        match=r"not packed into rows of 32; corpusmill run RUN --from tokens --to tokens --redo --set tokens.pack_lengths=\[32\]",
    ):
        shards.plan(0, 32)


def test_a_damaged_plan_is_seen_on_verifying_and_on_use(tmp_path):
    write_token_set(tmp_path, random_documents(2, 20, 30), pack=(16,))
    path = tmp_path / "tokens-00001.pack-16.arrow"
    path.write_bytes(path.read_bytes()[:-40])
    shards = TokenShards(tmp_path)
    shards.plan(0, 16)
    with pytest.raises(InputError, match=r"tokens-00001\.pack-16\.arrow"):
        shards.plan(1, 16)
    with pytest.raises(InputError, match=r"tokens-00001\.pack-16\.arrow: this packing plan is not the one that was written"):
        shards.verify()


def test_a_shard_that_changes_after_opening_is_seen_when_it_is_mapped(folder):
    shards = TokenShards(folder)
    (folder / "tokens-00001.bin").write_bytes(b"12")
    with pytest.raises(InputError, match=r"tokens-00001\.bin: this token shard is cut short \(2 bytes"):
        shards.tokens(1)
    (folder / "tokens-00001.bin").unlink()
    with pytest.raises(InputError, match=r"tokens-00001\.bin: can't be read \(No such file"):
        shards.tokens(1)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: rewrite_index(f, 1, lambda t: t.drop_columns(["url"])), r"tokens-00001\.index\.parquet: not an index of token shards"),
        (lambda f: rewrite_index(f, 1, lambda t: t.slice(1)), r"does not cover the 5 tokens of tokens-00001\.bin"),
    ],
)
def test_a_wrong_index_is_seen_where_it_is_read(folder, damage, sentence):
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        TokenShards(folder).index(1)


def test_tokens_of_another_tokenizer_are_refused(folder):
    with pytest.raises(InputError, match=r"made by another tokenizer \(sha256 ffffffffffff, expected 000000000000\)"):
        TokenShards(folder, "0" * 64)


def test_tokens_with_another_end_of_documents_are_refused(folder):
    with pytest.raises(InputError, match=r"shards\.json: documents end with token 0 here, and with 5 in"):
        TokenShards(folder, end_of_text_id=5)
