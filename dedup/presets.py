"""The MinHash of published pipelines, as a recipe would write it; what the recipe says itself goes first.

Presets propose the pairs that those pipelines propose (LSH on the same shingles, bands and rows). What happens to a pair is ours:
it is verified, and the threshold is the similarity that the pipeline says it is meant for. Where a hash is not named, ours
is used: which one plays no part in how likely a pair is to be found.
"""

from collections.abc import Mapping
from typing import Any

#: Preset to keys of the section `dedup`.
PRESETS: dict[str, dict[str, Any]] = {
    # FineWeb (arXiv 2406.17557, 3.4: 5-grams, 14 x 8, "at least 75% similar"), with datatrove 0.10's text and permutations.
    # FineWeb was made when SHA-1 was datatrove's one hash. A text of five words has a signature.
    "fineweb": {
        "threshold": 0.75,
        "minhash": {
            "ngram": 5, "word_rule": "spacy", "normalisation": "datatrove", "hash": "sha1", "bits": 64, "bands": 14, "rows": 8,
            "min_words": 1,
        },
    },
    # RedPajama v2 (app/src/dedupe/minhash.py): 13-grams of normalised words, 128 permutations of 32 bits, bands and rows by similarity.
    "redpajama": {
        "threshold": 0.8,
        "minhash": {
            "ngram": 13, "word_rule": "whitespace", "normalisation": "redpajama", "target": 0.8, "permutations": 128, "min_words": 1,
        },
    },
    # Olmo 3 (26 x 11 for .80) with duplodocus, whose README has these parameters with 5-grams of the tokens of cl100k_base; here of words.
    "olmo3": {"threshold": 0.8, "minhash": {"ngram": 5, "bands": 26, "rows": 11, "seed": 42, "min_words": 1}},
    # NeMo Curator's FuzzyDeduplicationWorkflow: 24 characters of the text as it is, 20 x 13, whose S-curve turns at .79.
    "nemo": {
        "threshold": 0.8,
        "minhash": {"unit": "characters", "ngram": 24, "normalisation": "none", "bands": 20, "rows": 13, "seed": 42, "min_words": 1},
    },
    # RefinedWeb (arXiv 2306.01116, G.3.1): 5-grams of GPT-2's tokens, here of words; 450 x 20, whose S-curve turns at .74. The paper names
    # no threshold.
    "refinedweb": {
        "threshold": 0.75,
        "minhash": {"ngram": 5, "word_rule": "whitespace", "normalisation": "refinedweb", "bands": 450, "rows": 20, "min_words": 1},
    },
}  # fmt: skip


def expand(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section `dedup` with what its preset says filled in. Raises ValueError where there is no such preset."""
    name, own = section.get("preset"), section.get("minhash") or {}
    if name is None or not isinstance(own, Mapping):
        return dict(section)
    if name not in PRESETS:
        raise ValueError(f"preset: no such preset as {name!r} (expected one of {', '.join(PRESETS)})")
    preset = PRESETS[name]
    minhash = {**preset["minhash"], **own}
    if "target" in preset["minhash"] and "target" not in own:  # bands by similarity: they follow the threshold, or are the recipe's own
        threshold = section.get("threshold")
        if {"bands", "rows"} & own.keys():
            minhash["target"] = None
        elif isinstance(threshold, float) and threshold < 1:
            minhash["target"] = threshold
    return {**preset, **section, "minhash": minhash}
