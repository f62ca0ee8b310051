"""Which documents each draw has, and in which order a proxy reads them.

A draw is a part of the documents. Near copies of one document, documents with one URL, and documents that share a rare passage are a group,
and a group is in one part only, of all variants: so draws are independent of each other, copies cost a variant what they cost a corpus, and
variants that share documents are compared on the same ones. A group of which a document holds a reference's passage is in no part.

A proxy reads pieces of documents in the order of their hashes. Documents that two variants share are read in the same order, so the
difference of two proxies has little noise besides that of the documents that they do not share.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.token_shards import TokenShards

Integers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
#: The documents (by URL, or by id where they have none) that are in a group with others, or in no draw.
GROUPS = pa.schema(
    [
        pa.field("document", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("excluded", pa.bool_(), nullable=False),
    ]
)


def names(table: pa.Table) -> pa.ChunkedArray:
    """Returns the names by which documents are known in all variants: their URLs, or their ids where they have none."""
    return pc.coalesce(table["url"], table["id"])


#: Tokens in a passage by which documents are known to share text, and one of how many passages is looked at.
PASSAGE, SAMPLED = 24, 32
#: A passage that more documents of a variant have is a phrase of their site or trade.
RARE = 2


def passages_of(shards: TokenShards) -> pa.Table:
    """Returns the rare passages of a variant's documents: `document` (its name) and `passage` (the hash of its tokens, uint64)."""
    parts = []
    for number in range(len(shards.shards)):
        tokens, index = np.asarray(shards.tokens(number)).astype(np.uint64), shards.index(number)
        hashes, width = np.zeros(max(len(tokens) - PASSAGE + 1, 0), np.uint64), len(tokens) - PASSAGE + 1
        for place in range(PASSAGE if width > 0 else 0):
            hashes = _numbered(hashes, tokens[place : place + width].astype(np.int64) + 1)
        ends = (index["first"].to_numpy() + index["tokens"].to_numpy()).astype(np.int64)
        starts = np.flatnonzero(hashes % np.uint64(SAMPLED) == 0)
        document = np.searchsorted(ends, starts, "right")
        whole = starts + PASSAGE <= ends[document] - 1 if len(starts) else starts.astype(bool)
        parts.append(pa.table({"document": names(index).take(document[whole]), "passage": hashes[starts[whole]]}))
    table = pa.concat_tables(parts).group_by(["document", "passage"]).aggregate([])
    counts = table.group_by("passage").aggregate([("document", "count")])
    return table.filter(pc.is_in(table["passage"], counts.filter(pc.less_equal(counts["document_count"], RARE))["passage"]))


def moved_share(first: pa.Table, other: pa.Table) -> float:
    """Returns the share of a variant's passages (`passages_of`) that the first variant has, but not in a document of that name."""
    known = pc.is_in(other["passage"], first["passage"])
    same = other.filter(known).join(first, ["document", "passage"], join_type="inner")
    return (pc.sum(known).as_py() - len(same) if len(other) else 0) / max(len(other), 1)


def largest_share(groups: pa.Table, variants: Iterable[TokenShards]) -> float:
    """Returns the share of a variant's tokens in its largest group, of the variant in which it is largest."""
    shares = [0.0]
    for shards in variants:
        index = pa.concat_tables([shards.index(number) for number in range(len(shards.shards))])
        group = groups["group"].take(pc.index_in(names(index), groups["document"]))
        sums = (
            pa.table({"group": group, "tokens": index["tokens"]})
            .filter(pc.is_valid(group))
            .group_by("group")
            .aggregate([("tokens", "sum")])
        )
        shares.append((pc.max(sums["tokens_sum"]).as_py() or 0) / max(pc.sum(index["tokens"]).as_py() or 0, 1))
    return max(shares)


def groups_of(copies: pa.Table, excluded: Iterable[str]) -> pa.Table:
    """Returns the groups (GROUPS) of documents. `copies`: id, url and `kept_id` of all documents of all variants, of which those with one
    `kept_id` are copies of each other, or share a passage. `excluded`: names of documents that no draw may have, nor their copies."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    documents, clusters = names(copies).dictionary_encode().combine_chunks(), copies["kept_id"].dictionary_encode().combine_chunks()
    count = len(documents.dictionary)
    rows, columns = documents.indices.to_numpy(), count + clusters.indices.to_numpy()
    size = count + len(clusters.dictionary)
    _, labels = connected_components(coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size)), directed=False)
    labels = labels[:count]
    order = pc.sort_indices(documents.dictionary).to_numpy()
    first = np.full(labels.max(initial=-1) + 1, -1)
    first[labels[order[::-1]]] = order[::-1]  # the smallest name of each group
    left_out = np.isin(labels, labels[pc.is_in(documents.dictionary, pa.array(sorted(excluded), pa.string())).to_numpy(False)])
    listed = order[left_out[order] | (np.bincount(labels, minlength=1)[labels[order]] > 1)]
    taken = [documents.dictionary.take(listed), documents.dictionary.take(first[labels[listed]]), pa.array(left_out[listed])]
    return pa.table(taken, schema=GROUPS)


def _hashes(strings: pa.ChunkedArray) -> Hashes:
    return np.array([xxhash.xxh64_intdigest(string) for string in strings.to_pylist()], np.uint64)


def _mixed(numbers: Hashes) -> Hashes:
    """Returns numbers that look random (the finalizer of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def _numbered(hashes: Hashes, numbers: Integers) -> Hashes:
    """Returns a new hash for each hash and number."""
    with np.errstate(over="ignore"):
        return _mixed(hashes + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


class DrawnDocuments:
    """The documents of a set of token shards, with the part of each."""

    def __init__(self, shards: TokenShards, groups: pa.Table, parts: int):
        indexes = [shards.index(number) for number in range(len(shards.shards))]
        table = pa.concat_tables([index.select(["id", "url", "first", "tokens"]) for index in indexes])
        self.shards, self.ids, named = shards, table["id"], names(table)
        numbers = np.repeat(np.arange(len(indexes)), [len(index) for index in indexes])
        #: int64 [documents, 4]: the shard, the first token in it, the number of tokens, and the number of the document.
        places = [numbers, table["first"].to_numpy(), table["tokens"].to_numpy(), np.arange(len(table))]
        self.places: Integers = np.stack(places, axis=1).astype(np.int64)
        self.hosts = hosts(table["url"])
        place = pc.index_in(named, groups["document"])
        group = _hashes(pc.coalesce(groups["group"].take(place), named))
        out = pc.fill_null(groups["excluded"].take(place), False).to_numpy()
        #: int64 [documents]: 0 to `parts` - 1; -1 for documents in no draw.
        self.part: Integers = np.where(out, -1, (group % np.uint64(parts)).astype(np.int64))
        hashes = _hashes(named)
        order = np.lexsort((_hashes(self.ids), hashes))
        begins = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
        copy = np.empty(len(order), np.int64)  # several documents with one URL are in places of their own
        copy[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
        self.hashes = _numbered(hashes, copy)
        #: Documents in draws, beyond the first of each group.
        self.copies = int((np.unique(group[self.part >= 0], return_counts=True)[1] - 1).sum())
        #: int64 [parts]: the tokens of each part.
        self.tokens = np.bincount(self.part[self.part >= 0], self.places[self.part >= 0, 2], parts).astype(np.int64)

    def pieces(self, part: int, wanted: int, longest: int, only: pa.ChunkedArray | None = None) -> tuple[Integers, int]:
        """Returns the pieces that give `wanted` tokens, int64 [pieces, 4] as `places`, and how many tokens there are.

        A piece is `longest` tokens of a document, or what is left of it. Where there are too few, all are read again in another order.
        `only`: the ids of the documents that take part.
        """
        chosen = self.part == part
        if only is not None:
            chosen &= pc.is_in(self.ids, only).to_numpy()
        places, hashes = self.places[chosen], self.hashes[chosen]
        counts = -(-places[:, 2] // longest)
        document = np.repeat(np.arange(len(places)), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        of_document = places[document]
        sizes = np.minimum(longest, of_document[:, 2] - number * longest)
        pieces = np.stack([of_document[:, 0], of_document[:, 1] + number * longest, sizes, of_document[:, 3]], axis=1)
        keys, there = _numbered(hashes[document], number + 1), int(sizes.sum())
        if not there:
            return pieces, 0
        epochs = [pieces[np.argsort(_numbered(keys, np.full(len(keys), epoch)), kind="stable")] for epoch in range(-(-wanted // there))]
        ordered = np.concatenate([pieces[:0], *epochs])
        return ordered[: int(np.searchsorted(np.cumsum(ordered[:, 2]), wanted)) + 1], there


@dataclass(frozen=True)
class Drawn:
    """The token ids that a proxy reads, how many tokens its part has, and of how many documents and hosts it reads at least a piece."""

    ids: Integers
    there: int
    documents: int
    hosts: int


def drawn_tokens(sources: Iterable[tuple[DrawnDocuments, float, pa.ChunkedArray | None]], part: int, wanted: int, longest: int) -> Drawn:
    """Returns `wanted` token ids of one part of several sources, each with its share, evenly mixed.

    A piece that is cut out of a document ends with the token that ends documents. A source with no token in the part gives none.
    """
    found, positions, have = list[tuple[DrawnDocuments, Integers]](), [], 0
    seen, known = 0, set[str | None]()
    for documents, share, only in sources:
        pieces, there = documents.pieces(part, round(wanted * share), longest, only)
        found.append((documents, pieces))
        ends = np.cumsum(pieces[:, 2])
        positions.append((ends - pieces[:, 2]) / max(1, ends[-1] if len(ends) else 1))
        have += there
        read = np.unique(pieces[:, 3])
        seen += len(read)
        known.update(documents.hosts.take(read).to_pylist())
    order = np.argsort(np.concatenate(positions), kind="stable")
    which = np.repeat(np.arange(len(found)), [len(pieces) for _, pieces in found])[order]
    rows = np.concatenate([pieces for _, pieces in found])[order]
    texts = []
    for source, (shard, first, tokens, _) in zip(which.tolist(), rows.tolist(), strict=True):
        shards = found[source][0].shards
        texts.append(np.asarray(shards.tokens(shard)[first : first + tokens], np.int64))
        if texts[-1][-1] != shards.end_of_text_id:
            texts.append(np.array([shards.end_of_text_id]))
    ids = np.concatenate([np.zeros(0, np.int64), *texts])
    return Drawn(np.resize(ids, wanted) if have else ids, have, seen, len(known - {None}))
