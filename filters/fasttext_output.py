# mypy: disallow-untyped-defs=False
"""Labels' scores from a text's hidden vector, inside kernels (`Loss::predict` and `HierarchicalSoftmaxLoss::dfs` of fastText 0.9.2)."""

import numpy as np

from corpusmill.filters.fasttext_model import HIERARCHICAL, SOFTMAX
from corpusmill.pipeline.kernel import kernel

NOT_LISTED = np.float32(-1.0)  # a label without a chance
UNKNOWN = np.float32(-2.0)  # all labels of a text with nothing that the model knows
MINIMUM = np.float32(np.log(1e-5))  # fastText's log of probability 0


@kernel
def output_scores(hidden, output, children, loss, values, scores):
    """Scores of all labels from the hidden vector (`Loss::predict` and `HierarchicalSoftmaxLoss::dfs` of fastText)."""
    labels = output.shape[1]
    values[:] = 0.0
    for row in range(hidden.size):
        for column in range(labels):
            values[column] += hidden[row] * output[row, column]
    if loss == HIERARCHICAL:
        tree_scores(values, children, scores)
    elif loss == SOFTMAX:
        values[:labels] = np.exp(values[:labels] - values[:labels].max())
        scores[:] = values[:labels] / values[:labels].sum() + 1e-5
    else:
        for label in range(labels):
            scores[label] = table_sigmoid(np.float32(values[label])) + 1e-5


@kernel
def table_sigmoid(value):
    """fastText's sigmoid: from a table of 512 values between -8 and 8."""
    if value < -8:
        return 0.0
    if value > 8:
        return 1.0
    return 1.0 / (1.0 + np.exp(8.0 - np.int64((value + np.float32(8)) * np.float32(32)) / 32))


@kernel
def tree_scores(values, children, scores):
    """Logarithms of the probabilities from the root down, rounded as fastText's; subtrees without a chance are left out."""
    labels = scores.size
    logs = np.full(children.shape[0], -np.inf, np.float32)
    logs[children.shape[0] - 1] = 0.0
    for node in range(children.shape[0] - 1, labels - 1, -1):  # a child has a lower number than its parent
        if logs[node] >= MINIMUM:
            right = np.float32(1.0 / (1.0 + np.exp(-values[node - labels])))
            logs[children[node, 0]] = logs[node] + np.float32(np.log(np.float32(1.0 - right) + 1e-5))
            logs[children[node, 1]] = logs[node] + np.float32(np.log(right + 1e-5))
    for label in range(labels):
        if logs[label] >= MINIMUM:
            scores[label] = np.exp(logs[label])
