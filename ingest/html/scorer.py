# mypy: disallow-untyped-defs=False
"""The net that scores the blocks of a page and finds its type.

A block is seen in the row of all blocks: two layers read the page forwards and backwards, and each carries a state from block to block
(minGRU, arXiv 2410.01201, table 1). One more layer reads what all of them say:

    page  = relu(W p + b)                         p: the page's values; types = softmax(W page + b)
    first = relu(W x + b + page)                  x: a block's features
    second = first + scan(first), then + W mean(second) + b over all blocks
    third = second + scan(second)
    score = sigmoid(w relu(W [first, second, third] + b) + b)

A scan has units in each direction: `state = (1 - z) state + z c`, with `z = gate(W x + b)` and `c = W x + b`. The gate is
(1 + x / (1 + |x|)) / 2, which needs no exponential function: all operations up to the last are exact to the bit on every processor.
`benchmarks/fit_extraction.py` makes the weights.
"""

from collections import namedtuple
from functools import cache
from pathlib import Path

import numpy as np

from corpusmill.ingest.html.features import NAMES, features
from corpusmill.ingest.html.page_type import PAGE_NAMES, page_values
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import borrowed

MODEL = Path(__file__).with_name("scorer.npz")

#: The weights, float32: of shape (outputs, inputs) and (outputs,). `block_mean` to `page_scale` bring features to a common scale.
Net = namedtuple(
    "Net",
    "block_mean block_scale page_mean page_scale first first_bias page page_bias types types_bias scan scan_bias mean mean_bias "
    "scan2 scan2_bias last last_bias out out_bias",
)
#: Blocks that are read in one row. A longer page is read in parts, so that its memory is bounded: a block takes 3 kB.
AT_A_TIME = 4096
#: Features are limited to this many standard deviations.
FAR = np.float32(6)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


@cache
def load_net(path: Path = MODEL) -> Net:
    """Loads the weights from an .npz. Raises CorpusmillError if they were made for other features."""
    with np.load(path) as arrays:
        if list(arrays["block_names"]) != list(NAMES) or list(arrays["page_names"]) != list(PAGE_NAMES):
            raise CorpusmillError(f"{path}: it was made for other features; make it anew with benchmarks/fit_extraction.py.")
        return Net(*(np.ascontiguousarray(arrays[name], np.float32) for name in Net._fields))


@kernel
def read_page(page, context, stated, net):
    """Returns the probability that a block is main text, for each block of a page, and the probabilities of the page's types, float64.

    `stated`: see `page_type.stated_values`. The page must have blocks.
    """
    values = page_values(page, context, stated)
    whole, types = page_types(values, net)
    scores = np.empty(len(page.blocks))
    for first in range(0, len(scores), AT_A_TIME):
        last = min(first + AT_A_TIME, len(scores))
        scores[first:last] = score(features(page, context, first, last), whole, net)
    return scores, types


@kernel
def page_types(values, net):
    """Returns what the net makes of a page's values PAGE_NAMES (float32, one for each unit), and the probabilities of TYPES, float64."""
    scaled = values.copy().reshape(len(values), 1)
    _scale(scaled, net.page_mean, net.page_scale)
    whole = np.empty((len(net.page), 1), np.float32)
    _linear(scaled, net.page, net.page_bias, whole)
    _cut(whole)
    odds = np.empty((len(net.types), 1), np.float32)
    _linear(whole, net.types, net.types_bias, odds)
    shares = np.exp((odds - odds.max())[:, 0].astype(np.float64))
    return whole[:, 0].copy(), shares / shares.sum()


@kernel
def score(columns, whole, net):
    """Returns the probabilities that n blocks are main text, float64. `columns`: their features, float32 of shape (len(NAMES), n), which
    are scaled in place. `whole`: what the net makes of the page."""
    units, count = len(whole), columns.shape[1]
    _scale(columns, net.block_mean, net.block_scale)
    states, gates = np.empty((3 * units, count), np.float32), np.empty((2 * units, count), np.float32)
    first, second, third = states[:units], states[units : 2 * units], states[2 * units :]
    _linear(columns, net.first, net.first_bias + whole, first)
    _cut(first)
    _linear(first, net.scan, net.scan_bias, gates)
    _scan(first, gates, second)
    means = np.empty((units, 1), np.float32)
    for unit in range(units):
        means[unit, 0] = second[unit].sum() / np.float32(count)
    added = np.empty((units, 1), np.float32)
    _linear(means, net.mean, net.mean_bias, added)
    second += added
    _linear(second, net.scan2, net.scan2_bias, gates)
    _scan(second, gates, third)
    mixed, odds = gates[:units], np.empty((1, count), np.float32)
    _linear(states, net.last, net.last_bias, mixed)
    _cut(mixed)
    _linear(mixed, net.out, net.out_bias, odds)
    return 1.0 / (1.0 + np.exp(-odds[0].astype(np.float64)))


@kernel
def _scale(columns, means, scales):
    """Takes the root of the sizes of all values, and brings these to mean 0 and deviation 1, within FAR."""
    columns = borrowed(columns)
    for row in range(len(columns)):
        mean, scale = means[row], scales[row]
        for column in range(columns.shape[1]):
            value = columns[row, column]
            root = np.sqrt(abs(value))
            value = ((root if value >= ZERO else -root) - mean) * scale
            columns[row, column] = min(max(value, -FAR), FAR)


@kernel
def _linear(columns, weights, bias, out):
    """Writes `weights @ columns + bias` to `out`: four rows of `columns` at a time, as this is the part that takes time."""
    columns, weights, out = borrowed(columns), borrowed(weights), borrowed(out)
    inputs, whole = len(columns), len(columns) & ~3
    for row in range(len(out)):
        line = out[row]
        line[:] = bias[row]
        for at in range(0, whole, 4):
            a, b, c, d = weights[row, at], weights[row, at + 1], weights[row, at + 2], weights[row, at + 3]
            one, two, three, four = columns[at], columns[at + 1], columns[at + 2], columns[at + 3]
            for column in range(len(line)):
                line[column] += (a * one[column] + b * two[column]) + (c * three[column] + d * four[column])
        for at in range(whole, inputs):
            weight, one = weights[row, at], columns[at]
            for column in range(len(line)):
                line[column] += weight * one[column]


@kernel
def _cut(values):
    values = borrowed(values)
    for row in range(len(values)):
        for column in range(values.shape[1]):
            values[row, column] = max(values[row, column], ZERO)


@kernel
def _scan(before, gates, out):
    """Writes `before` and the states to `out`: the first half of the units reads the blocks forwards, the other half backwards.

    `gates`: first the gates of all units, then what would be the new states."""
    before, gates, out = borrowed(before), borrowed(gates), borrowed(out)
    units, count = before.shape
    for unit in range(units):
        for column in range(count):
            value = gates[unit, column]
            gates[unit, column] = HALF + HALF * (value / (ONE + abs(value)))
        state = ZERO
        for step in range(count):
            column = step if unit < units // 2 else count - 1 - step
            gate = gates[unit, column]
            state = (ONE - gate) * state + gate * gates[units + unit, column]
            out[unit, column] = before[unit, column] + state
