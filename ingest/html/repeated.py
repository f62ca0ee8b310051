# mypy: disallow-untyped-defs=False
"""Repeated structure: blocks under equal paths of elements, and siblings with equal names and classes (posts, cards, rows, teasers).

What a repeated block is shows in its group rather than in itself: posts are long and have a date and an author each, teasers are links.
"""

import math
from collections import namedtuple

import numpy as np

from corpusmill.ingest.html.tags import HINT_NAMES, NAME, SIGNATURE
from corpusmill.ingest.html.walk import ALIKE, DEPTH, FIRST, LAST, NODE, OWN_HINTS, PARENT, PRIME, TAG
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import borrowed

#: Columns of the running sums over the blocks: characters, characters in links, blocks with an end mark, characters in prose.
ALL, OF_LINKS, WITH_END, PROSE = range(4)

H1, H6 = NAME["h1"], NAME["h6"]
#: Hints of which it is counted how many siblings of a group hold them. `WITH_HEADING`: the bit for siblings that hold a heading.
HELD = tuple(HINT_NAMES.index(name) for name in ("date", "author", "image", "shop", "button", "rating"))
WITH_HEADING = SIGNATURE + 1
#: Columns of the sums over a group: its members, the sum of the logarithms of their characters and of the squares of these, the sums of
#: their columns ALL to PROSE, their blocks, and how many begin with a text that is unique in the page; then how many hold each of HELD,
#: and a heading.
COUNT, LOGS, SQUARES, OF_ALL, BLOCKS, UNIQUE, HOLDS = 0, 1, 2, 3, 7, 8, 9
SUMS = HOLDS + len(HELD) + 1
#: Siblings are records from this many on; blocks are a group from 2 on.
RECORDS = 3

#: Groups of blocks or nodes: `ids` (int32): the group of each, -1 if it has none. `order` (int32): how many of its group come before it.
#: `sums` (float32 of shape (groups, SUMS)). `values` (float32 of shape (groups, len(RECORD_NAMES))): what a group's members share of the
#: features RECORD_NAMES.
Groups = namedtuple("Groups", "ids order sums values")
#: `classes`, `tags`: groups of blocks with equal classes, or names, of the elements around them. `records`: groups of siblings. `inner`,
#: `outer` (int32): the innermost and the outermost record around each node, 0 if there is none.
Repeated = namedtuple("Repeated", "classes tags records inner outer")


@kernel
def repeated_of(blocks, nodes, sums, equal, siblings):
    """Returns what is `Repeated` in a page. `sums`, `equal`: as in `features.Context`. `siblings`: the `numbered` keys of siblings."""
    records = _groups(siblings, nodes[:, FIRST].copy(), nodes[:, LAST].copy(), sums, equal, _hints_below(nodes), RECORDS)
    inner, outer = np.zeros(len(nodes), np.int32), np.zeros(len(nodes), np.int32)
    for node in range(1, len(nodes)):
        above, is_record = nodes[node, PARENT], records.ids[node] >= 0
        inner[node] = node if is_record else inner[above]
        outer[node] = outer[above] if outer[above] or not is_record else node
    first, nothing = np.arange(len(blocks)), np.zeros(0, np.int64)
    classes, tags = _path_keys(blocks, nodes)
    by_class = _groups(numbered(classes), first, first + 1, sums, equal, nothing, 2)
    by_tag = _groups(numbered(tags), first, first + 1, sums, equal, nothing, 2)
    return Repeated(by_class, by_tag, records, inner, outer)


@kernel(inline="always")
def _mix(key, value):
    return (key ^ (np.uint64(value) + np.uint64(0x9E3779B97F4A7C15))) * PRIME ^ (key >> np.uint64(29))


@kernel
def sibling_keys(nodes):
    """Returns a key for each node (uint64). Siblings with equal names and classes have equal keys."""
    keys = np.empty(len(nodes), np.uint64)
    for node in range(len(keys)):
        keys[node] = _mix(_mix(np.uint64(nodes[node, ALIKE]), nodes[node, PARENT] + 2), 0)
    return keys


@kernel
def _path_keys(blocks, nodes):
    """Returns two keys for each block: of the names and classes of its node and the two nodes above, and of the names of four nodes and
    the depth."""
    classes, tags = np.empty(len(blocks), np.uint64), np.empty(len(blocks), np.uint64)
    for block in range(len(blocks)):
        node = blocks[block, NODE]
        by_class, by_tag = np.uint64(1), _mix(np.uint64(2), nodes[node, DEPTH])
        for level in range(4):
            if node > 0:
                by_class = _mix(by_class, nodes[node, ALIKE]) if level < 3 else by_class
                by_tag = _mix(by_tag, nodes[node, TAG])
                node = nodes[node, PARENT]
        classes[block], tags[block] = by_class, by_tag
    return classes, tags


@kernel
def _hints_below(nodes):
    """Returns the hints of each node and the nodes in it; the bit WITH_HEADING where one of these is a heading."""
    below = np.zeros(len(nodes), np.int64)
    for node in range(len(nodes) - 1, 0, -1):
        below[node] |= nodes[node, OWN_HINTS] | np.int64(H1 <= nodes[node, TAG] <= H6) << WITH_HEADING
        below[nodes[node, PARENT]] |= below[node]
    return below


@kernel
def numbered(keys):
    """Returns for each key (uint64) a number, int32, equal for equal keys, and how often each number occurs, int32."""
    size = 8
    while size < 2 * len(keys):
        size *= 2
    table, numbers = np.zeros(size, np.uint64), np.empty(size, np.int32)
    out, counts, found = np.empty(len(keys), np.int32), np.zeros(len(keys), np.int32), 0
    mask = size - 1
    for index in range(len(keys)):
        key = keys[index] | np.uint64(1)  # 0 is an empty place
        place = np.int64((key >> np.uint64(17)) & np.uint64(mask))
        while table[place] != 0 and table[place] != key:
            place = (place + 1) & mask
        if table[place] == 0:
            table[place], numbers[place] = key, found
            found += 1
        out[index] = numbers[place]
        counts[out[index]] += 1
    return out, counts[:found]


@kernel
def _groups(keys, first, last, sums, equal, below, least):
    """Returns the `Groups` of items with equal keys, which are `numbered`. An item is the blocks from `first` to `last`; items without
    blocks are in no group, nor are those whose key is that of fewer than `least` items. `below`: the hints in each item, or nothing."""
    ids, counts = keys[0].copy(), keys[1]
    rows, many = np.full(len(counts), -1, np.int32), 0
    for group in range(len(counts)):
        if counts[group] >= least:
            rows[group] = many
            many += 1
    order, out = np.zeros(len(ids), np.int32), np.zeros((many, SUMS), np.float32)
    _add_members(
        borrowed(ids), borrowed(rows), borrowed(first), borrowed(last), borrowed(sums), borrowed(equal), borrowed(below), order, out
    )
    return Groups(ids, order, out, _values(out, sums[-1, ALL]))


@kernel
def _add_members(ids, rows, first, last, sums, equal, below, order, out):
    order, out = borrowed(order), borrowed(out)
    for item in range(len(ids)):
        begin, end = first[item], last[item]
        ids[item] = rows[ids[item]] if end > begin else -1
        if ids[item] < 0:
            continue
        group = out[ids[item]]
        order[item] = np.int32(group[COUNT])
        chars = math.log1p(sums[end, ALL] - sums[begin, ALL])
        group[COUNT] += 1
        group[LOGS] += chars
        group[SQUARES] += chars * chars
        for column in range(4):
            group[OF_ALL + column] += sums[end, column] - sums[begin, column]
        group[BLOCKS] += end - begin
        group[UNIQUE] += equal[begin] == 1
        if len(below):
            for place in range(len(HELD)):
                group[HOLDS + place] += (below[item] >> HELD[place]) & 1
            group[HOLDS + len(HELD)] += (below[item] >> WITH_HEADING) & 1


#: What `of_group` writes.
GROUP_NAMES = ("count", "order", "share", "mean", "deviation", "linked", "ends", "prose", "unique")
#: What `of_record` writes, too.
RECORD_NAMES = (*GROUP_NAMES, "chars", "blocks", *(f"with_{HINT_NAMES[hint]}" for hint in HELD), "with_heading")


#: The two that differ in a group: `order`, and `chars` of a record.
ORDER, OWN_CHARS = RECORD_NAMES.index("order"), RECORD_NAMES.index("chars")


@kernel
def _values(sums, total):
    """Returns `Groups.values`. `total`: the characters of the page."""
    values = np.zeros((len(sums), len(RECORD_NAMES)), np.float32)
    for number in range(len(sums)):
        group, row = sums[number], values[number]
        if group[COUNT] == 0:  # none of its members has blocks
            continue
        count, chars = group[COUNT], max(group[OF_ALL + ALL], np.float32(1))
        mean = group[LOGS] / count
        row[0], row[2], row[3] = math.log1p(count), chars / total, mean
        row[4] = math.sqrt(max(group[SQUARES] / count - mean * mean, np.float32(0)))
        row[5], row[6] = group[OF_ALL + OF_LINKS] / chars, group[OF_ALL + WITH_END] / group[BLOCKS]
        row[7], row[8] = group[OF_ALL + PROSE] / chars, group[UNIQUE] / count
        row[OWN_CHARS + 1] = group[BLOCKS] / count
        for held in range(len(HELD) + 1):
            row[OWN_CHARS + 2 + held] = group[HOLDS + held] / count
    return values


@kernel(inline="always")
def of_group(row, place, groups, item):
    """Writes the features of an item's group from `row[place]` on; zeros if it has none."""
    return _write(row, place, groups, item, len(GROUP_NAMES)) if groups.ids[item] >= 0 else place + len(GROUP_NAMES)


@kernel(inline="always")
def of_record(row, place, groups, node, nodes, sums):
    """Writes the features of a record, the node `node` (0: none), and its group."""
    if node == 0:
        return place + len(RECORD_NAMES)
    row[place + OWN_CHARS] = math.log1p(sums[nodes[node, LAST], ALL] - sums[nodes[node, FIRST], ALL])
    return _write(row, place, groups, node, len(RECORD_NAMES))


@kernel(inline="always")
def _write(row, place, groups, item, count):
    group = groups.ids[item]
    for value in range(count):
        if value != OWN_CHARS:
            row[place + value] = groups.values[group, value]
    row[place + ORDER] = groups.order[item] / groups.sums[group, COUNT]
    return place + count
