"""Tests which documents a draw has, and the order in which they are read."""

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpusmill
from corpusmill.ablate.draws import GROUPS, DrawnDocuments, drawn_tokens, groups_of, largest_share, moved_share, passages_of
from corpusmill.pipeline.token_shards import TokenShards

PARTS = 3


def copies(rows: list[tuple[str, str | None, str]]) -> pa.Table:
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(("id", "url", "kept_id"), zip(*rows, strict=True), strict=True)}
    )


def test_copies_and_documents_with_one_url_are_one_group() -> None:
    found = groups_of(
        copies([
            ("1", "http://a", "1"), ("2", "http://b", "1"),  # copies
            ("3", "http://b", "3"), ("4", "http://c", "3"),  # another capture of b, with a copy of its own
            ("5", None, "5"), ("6", None, "5"),  # copies without a URL
            ("7", "http://alone", "7"),
            ("8", "http://out", "8"), ("9", "http://out-too", "8"),
        ]),
        excluded={"http://out"},
    )  # fmt: skip
    assert found.schema == GROUPS
    assert {row["document"]: (row["group"], row["excluded"]) for row in found.to_pylist()} == {
        "http://a": ("http://a", False), "http://b": ("http://a", False), "http://c": ("http://a", False),
        "5": ("5", False), "6": ("5", False), "http://out": ("http://out", True), "http://out-too": ("http://out", True),
    }  # fmt: skip


def encoded(folder: Path, name: str, texts: list[str], tokenizer: Path | None) -> TokenShards:
    pq.write_table(pa.table({"text": texts, "url": [f"http://{name}/{n}" for n in range(len(texts))]}), folder / f"{name}.parquet")
    made = {"vocab_size": 512} if tokenizer is None else {"file": str(tokenizer)}
    recipe = {"ingest": {}, "tokenizer": {**made, "judge": {"compare": []}}, "tokens": {"validation_share": 0.0}}
    corpusmill.run(recipe, folder / f"{name}.parquet", folder / name, engine="inline")
    return TokenShards(folder / name / "tokens/train")


def test_documents_that_share_a_rare_passage_are_known(tmp_path: Path) -> None:
    words = [f"{word}{n % 1009}" for n, word in enumerate(" ".join(text for _, text in sorted(topics.items())).split())]
    texts = [" ".join(words[n * 600 : n * 600 + 500]) for n in range(12)]
    footer = " ".join(words[20_000:20_300])
    quoting = [" ".join([*texts[n].split()[100:400], *words[30_000 + n * 400 : 30_300 + n * 400]]) for n in range(3)]
    first = encoded(tmp_path, "a", [f"{text} {footer}" for text in texts], None)
    second = encoded(tmp_path, "b", quoting, tmp_path / "a/tokenizer/tokenizer.json")
    ours, theirs = passages_of(first), passages_of(second)
    table = pa.concat_tables([ours, theirs])
    by_passage: dict[int, set[str]] = {}
    for row in table.to_pylist():
        by_passage.setdefault(row["passage"], set()).add(row["document"])
    together = {frozenset(some) for some in by_passage.values() if len(some) > 1}
    assert together == {frozenset({f"http://a/{n}", f"http://b/{n}"}) for n in range(3)}  # the footer, which all have, is not rare
    shared = pa.table({"id": table["document"], "url": pa.nulls(len(table), pa.string()), "kept_id": table["passage"].cast(pa.string())})
    groups = groups_of(shared, set())
    assert {row["document"]: row["group"] for row in groups.to_pylist()} == {
        f"http://{v}/{n}": f"http://a/{n}" for v in "ab" for n in range(3)
    }
    assert largest_share(groups, [first, second]) == pytest.approx(1 / 3, abs=0.05)  # a third of b's tokens
    assert moved_share(ours, theirs) == pytest.approx(0.5, abs=0.05)  # half of b's texts stand in a, under other names
    assert moved_share(ours, ours) == 0
    assert moved_share(ours, theirs.slice(0, 0)) == 0


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    folder = tmp_path_factory.mktemp("draws")
    words = " ".join(text for _, text in sorted(topics.items())).split()
    rows = [
        {"text": f"document {n} " + " ".join(words[n * 100 : n * 100 + 20 + n % 80]), "url": f"http://a.test/{n // 2 if n < 20 else n}"}
        for n in range(200)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet")
    recipe = {"ingest": {}, "tokenizer": {"vocab_size": 512, "judge": {"compare": []}}, "tokens": {"validation_share": 0.0}}
    corpusmill.run(recipe, folder / "documents.parquet", folder / "run", engine="inline")
    return TokenShards(folder / "run/tokens/train")


@pytest.fixture(scope="module")
def documents(shards: TokenShards) -> DrawnDocuments:
    return DrawnDocuments(shards, GROUPS.empty_table(), PARTS)


def whole(shards: TokenShards, place: np.ndarray) -> list[int]:
    shard, first, tokens, _ = place.tolist()
    return shards.tokens(shard)[first : first + tokens].tolist()


def test_each_document_is_in_one_part_and_one_url_in_one(documents: DrawnDocuments, shards: TokenShards) -> None:
    assert set(documents.part.tolist()) == set(range(PARTS))
    assert documents.tokens.sum() == len(shards)
    urls = pa.concat_tables([shards.index(number) for number in range(len(shards.shards))])["url"].to_pylist()
    assert len({(url, part) for url, part in zip(urls, documents.part.tolist(), strict=True)}) == len(set(urls)) == 190
    assert len(set(documents.hashes.tolist())) == 200  # each of the documents with one URL has a place of its own


def test_groups_decide_the_part(shards: TokenShards) -> None:
    urls = [f"http://a.test/{n}" for n in range(100, 140)]
    groups = pa.table([urls, ["http://a.test/100"] * 40, [False] * 39 + [True]], schema=GROUPS)
    found = DrawnDocuments(shards, groups, PARTS)
    part = dict(
        zip(pa.concat_tables([shards.index(n) for n in range(len(shards.shards))])["url"].to_pylist(), found.part.tolist(), strict=True)
    )
    assert len({part[url] for url in urls[:39]}) == 1
    assert part[urls[39]] == -1


def test_pieces_are_all_tokens_of_a_part_once_an_epoch(documents: DrawnDocuments, shards: TokenShards) -> None:
    total = int(documents.tokens[1])
    pieces, there = documents.pieces(1, 2 * total, longest=16)
    assert there == total and pieces[:, 2].max() <= 16
    half = len(pieces) // 2
    first, second = (np.array(sorted(epoch.tolist())) for epoch in (pieces[:half], pieces[half:]))
    assert np.array_equal(first, second) and not np.array_equal(pieces[:half], pieces[half:])
    wanted = sorted(token for place in documents.places[documents.part == 1] for token in whole(shards, place))
    assert sorted(token for piece in pieces[:half] for token in whole(shards, piece)) == wanted


def test_a_variant_without_some_documents_reads_the_others_in_the_same_order(documents: DrawnDocuments, shards: TokenShards) -> None:
    left = documents.ids.filter(pa.array(np.arange(200) % 3 > 0))
    everything, _ = documents.pieces(0, int(documents.tokens[0]), longest=16)
    fewer, there = documents.pieces(0, int(documents.tokens[0]), longest=16, only=left)
    kept = {tuple(place) for place in documents.places[np.flatnonzero(np.arange(200) % 3 > 0)][:, :2].tolist()}
    begins = np.sort(documents.places[:, 1])

    def of_kept(piece: list[int]) -> bool:
        return (piece[0], int(begins[np.searchsorted(begins, piece[1], "right") - 1])) in kept

    assert len(shards.shards) == 1
    assert [piece for piece in everything.tolist() if of_kept(piece)] == fewer[
        : np.searchsorted(np.cumsum(fewer[:, 2]), there) + 1
    ].tolist()


def test_shares_of_sources_are_kept_from_the_first_token_to_the_last(documents: DrawnDocuments) -> None:
    numbers = np.arange(200)
    sources = [
        (documents, 0.25, documents.ids.filter(pa.array(numbers % 40 < 20))),
        (documents, 0.75, documents.ids.filter(pa.array(numbers % 40 >= 20))),
    ]
    drawn = drawn_tokens(sources, 0, 3000, longest=16)
    ids = drawn.ids
    assert len(ids) == 3000 and drawn.there == documents.tokens[0]
    read = [documents.pieces(0, round(3000 * share), 16, only)[0][:, 3] for _, share, only in sources]
    assert drawn.documents == sum(len(set(some.tolist())) for some in read) < (documents.part == 0).sum() and drawn.hosts == 1
    pieces, _ = documents.pieces(0, 750, 16, sources[0][2])
    content = ids.astype(np.uint16).tobytes()
    found = [content.find(np.array(whole(documents.shards, piece), np.uint16).tobytes()) / len(content) for piece in pieces]
    there = np.array([place for place in found if place >= 0])
    assert len(there) > 0.9 * len(pieces)  # the last ones may be cut, as pieces of a document get an end
    assert (there < 0.5).mean() == pytest.approx(0.5, abs=0.1)
