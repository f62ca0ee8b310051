"""How public fastText classifiers are to be asked: which label is the answer yes, how a text is written, what its authors kept.

Each was read out of the code or the model card that its authors publish with it; none of the models ships with corpusmill. A recipe
names one with `preset`, and gives the file by path or URL: `- classifier: {preset: dclm, model: openhermes_reddit_eli5_....bin}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from corpusmill.filters.classifier.card import Form

Where = Literal["high", "low"]


@dataclass(frozen=True)
class Convention:
    """What is known of a public model. `values`: the number that each of its labels stands for, where they are steps of a scale."""

    source: str
    name: str  # of the column
    form: Form
    keep_where: Where
    positive: str | None = None  # the fastText label whose probability is the score
    values: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = None  # with which its authors decided
    comparison: str | None = None  # where a document fails; None as for all others (step.py)


CONVENTIONS: dict[str, Convention] = {
    # openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin, whose labels are __label__hq and __label__cc. Lines are joined by spaces,
    # the score is the probability of hq (one less that of cc, where cc is likelier), and a document stays from the threshold on.
    "dclm": Convention(
        "mlfoundations/dclm: baselines/mappers/enrichers/quality_prediction_enrichers_calc_fasttext.py, "
        "baselines/baselines_configs/fasttext_filter.yaml",
        name="dclm",
        form="plain",
        keep_where="high",
        positive="__label__hq",
        threshold=0.018112,
    ),
    # jigsaw_fasttext_bigrams_hatespeech_final.bin: of its two labels the one that has "non" in its name is the answer no. The taggers
    # `..._document_v2` take a document as one line. Those of sentences, of which Dolma cut what is above .4, are the same on each
    # sentence: `window` comes near to them, in words.
    "dolma-jigsaw-hatespeech": Convention(
        "allenai/dolma: python/dolma/taggers/jigsaw.py",
        name="jigsaw_hatespeech",
        form="plain",
        keep_where="low",
        positive="__label__toxic",
        threshold=0.4,
        comparison=">",
    ),
    "dolma-jigsaw-nsfw": Convention(
        "allenai/dolma: python/dolma/taggers/jigsaw.py",
        name="jigsaw_nsfw",
        form="plain",
        keep_where="low",
        positive="__label__nsfw",
        threshold=0.4,
        comparison=">",
    ),
    # kenhktsui/fineweb-edu-fasttext-classifier: FineWeb-Edu's marks from 0 to 5 as six labels. The card gives the likeliest label.
    "fineweb-edu": Convention(
        "huggingface.co/kenhktsui/fineweb-edu-fasttext-classifier",
        name="fineweb_edu",
        form="plain",
        keep_where="high",
        values={f"__label__{mark}": float(mark) for mark in range(6)},
    ),
    # kenhktsui/llm-data-textbook-quality-fasttext-classifer-v2: the expected value, of which the card's own filter keeps 1 and more.
    "textbook-quality": Convention(
        "huggingface.co/kenhktsui/llm-data-textbook-quality-fasttext-classifer-v2",
        name="textbook_quality",
        form="plain",
        keep_where="high",
        values={"__label__Low": 0.0, "__label__Mid": 1.0, "__label__High": 2.0},
        threshold=1.0,
    ),
}
