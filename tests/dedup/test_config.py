"""Tests presets and options."""

import pytest
from datasketch import MinHashLSH
from pydantic import ValidationError

from corpusmill.dedup.config import DedupConfig, MinHashConfig
from corpusmill.dedup.shingles import band_shape, optimal_bands
from corpusmill.pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "shape", "unit", "ngram", "threshold"),
    [
        ("fineweb", (14, 8), "words", 5, 0.75),
        ("redpajama", (9, 13), "words", 13, 0.8),
        ("olmo3", (26, 11), "words", 5, 0.8),
        ("nemo", (20, 13), "characters", 24, 0.8),
        ("refinedweb", (450, 20), "words", 5, 0.75),
    ],
)
def test_presets_are_what_their_sources_say(name: str, shape: tuple[int, int], unit: str, ngram: int, threshold: float) -> None:
    config = DedupConfig.model_validate({"preset": name})
    assert (band_shape(config.minhash), config.minhash.unit, config.minhash.ngram, config.threshold) == (shape, unit, ngram, threshold)


def test_what_the_recipe_says_goes_first() -> None:
    config = DedupConfig.model_validate({"preset": "fineweb", "threshold": 0.9, "minhash": {"bands": 20}, "keep": "newest"})
    assert (config.threshold, config.minhash.bands, config.minhash.rows, config.keep) == (0.9, 20, 8, "newest")
    assert config.minhash.normalisation == "datatrove"
    again = DedupConfig.model_validate(config.model_dump(mode="json"))  # as in run.json and in tasks
    assert again == config


def test_bands_by_similarity_follow_the_threshold() -> None:
    for threshold, shape in ((0.7, (14, 9)), (0.8, (9, 13)), (0.9, (5, 25))):
        config = DedupConfig.model_validate({"preset": "redpajama", "threshold": threshold})
        lsh = MinHashLSH(threshold=threshold, num_perm=128)
        assert band_shape(config.minhash) == shape == (lsh.b, lsh.r)
    own = DedupConfig.model_validate({"preset": "redpajama", "minhash": {"bands": 4, "rows": 6}})
    assert band_shape(own.minhash) == (4, 6)


@pytest.mark.parametrize("count", [2, 5, 16, 100, 128, 256])
def test_the_best_bands_are_datasketchs(count: int) -> None:
    for target in (0.01, 0.2, 1 / 3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.99):
        try:
            expected = MinHashLSH(target, count)
        except ValueError:  # a single band
            with pytest.raises(ConfigError, match="too few"):
                optimal_bands(target, count)
        else:
            assert optimal_bands(target, count) == (expected.b, expected.r), target


@pytest.mark.parametrize(
    "wrong",
    [
        {"bands": 0},
        {"bands": 1024, "rows": 128},
        {"seed": 1 << 32},
    ],
)
def test_sizes_that_can_not_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        MinHashConfig.model_validate(wrong)
