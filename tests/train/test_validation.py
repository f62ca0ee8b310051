"""Tests the nats of targets."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_sets import write_token_set

from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.data import UNKNOWN, DataShare, TextSums, Validation
from corpusmill.train.model import Llama, initialise
from corpusmill.train.options import Architecture
from corpusmill.train.parallel.model import ParallelModel

# ---- intervals ---------------------------------------------------------------------------------------

# Intervals against closed forms and against coverage.


# ---- validation --------------------------------------------------------------------------------------

# Scores of held-out tokens: by hand, by group, and the same for any distribution of windows.

CPU, VOCABULARY = torch.device("cpu"), 40
ARCH = Architecture(vocab_size=VOCABULARY, layers=1, width=16, heads=2, kv_heads=2, head_dim=8, ffn=16, context=8)
#: Special tokens are no text; the others have one to three bytes.
SIZES = np.array([0, 0, 0, 0, *(1 + n % 3 for n in range(VOCABULARY - 4))])


def scored_model() -> Llama:
    found = Llama(ARCH)
    initialise(found, 0)
    with torch.no_grad():
        for p in found.parameters():
            p += torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.3
    return found.double()


MODEL = scored_model()
SETS = st.lists(
    st.lists(st.lists(st.integers(4, VOCABULARY - 1), max_size=9).map(lambda ids: [*ids, EOT_ID]), max_size=5), min_size=1, max_size=4
)


def described(folder: Path, **columns: list[str | None]) -> TokenShards:
    """Returns a shard with a document of three tokens for each value of the columns, which its index has."""
    count = len(next(iter(columns.values())))
    write_token_set(folder, [[[4 + n % 9, 5, EOT_ID] for n in range(count)]], vocabulary_size=VOCABULARY)
    shards = TokenShards(folder)
    index = shards.index(0)
    for name, values in columns.items():
        index = index.set_column(index.column_names.index(name), name, pa.array(values, pa.string()))
    shards._indexes[0] = index
    return shards


class Ranks(ParallelModel):
    """One of several processes; its totals are those that all of them have left in `parts`."""

    parts: list[torch.Tensor]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        self.parts.append(values)
        return torch.stack(self.parts).sum(0)


@settings(deadline=None, max_examples=15)
@given(sets=SETS, mask=st.booleans(), batch=st.integers(1, 5), of=st.integers(1, 3))
def test_nats_bytes_and_tokens_of_each_document_by_hand_for_any_batch_and_any_shares(tmp_path_factory, sets, mask, batch, of) -> None:
    folder = tmp_path_factory.mktemp("set")
    write_token_set(folder, sets, vocabulary_size=VOCABULARY)
    documents = [document for shard in sets for document in shard]
    if not documents:
        return
    shards = TokenShards(folder)
    row = [EOT_ID, *(token for document in documents for token in document)]
    nats = []
    for start in range(0, len(row) - 1, ARCH.context):
        ids = torch.tensor([row[start : start + ARCH.context + 1]])
        segments = (ids[:, :-1] == EOT_ID).cumsum(1) if mask else None
        with torch.no_grad():
            logits = MODEL(ids[:, :-1], segments)
        nats += torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="none").tolist()
    validation, place, wanted = Validation(shards, SIZES, ARCH.context, mask), 0, []
    for document in documents:
        text = nats[place : place + len(document) - 1]
        wanted.append((sum(text), len(text), sum(SIZES[document])))
        place += len(document)
    local = Ranks(MODEL, "fp32")
    local.parts = []
    for index in range(of):
        sums = validation.sums(local, CPU, DataShare(index, of), tokens=batch * ARCH.context)
    for found, values in zip((sums.nats, sums.tokens, sums.sizes), zip(*wanted)):
        assert found.tolist() == pytest.approx(values, rel=1e-10)


def test_scores_by_language_and_host_are_those_of_their_documents(tmp_path: Path) -> None:
    languages = ["de", "en", "en", None, "en", "de"]
    urls = ["https://a.test/1", "https://b.test/2", "http://A.test/3", None, "https://b.test/5", "https://b.test/6"]
    validation = Validation(described(tmp_path, language=languages, url=urls, source=["one"] * 6), SIZES, 8, True)
    sums = validation.sums(ParallelModel(MODEL, "fp32"), CPU)
    found = validation.report(sums)["by"]
    assert list(found) == ["language", "host"]  # all are of one source, so there are no groups
    assert {name: score["documents"] for name, score in found["language"].items()} == {"en": 3, "de": 2, UNKNOWN: 1}
    assert {name: score["documents"] for name, score in found["host"].items()} == {"b.test": 3, "a.test": 2, UNKNOWN: 1}
    for name in ("en", "de"):
        rows = [n for n, language in enumerate(languages) if language == name]
        score = found["language"][name]
        assert score["bits_per_byte"] == pytest.approx(sums.nats[rows].sum() / math.log(2) / sums.sizes[rows].sum(), rel=1e-12)
        assert score["low"] <= score["bits_per_byte"] <= score["high"] and score["utf8_bytes"] == sums.sizes[rows].sum()


def test_the_interval_covers_the_score_of_the_whole_from_which_documents_are_drawn() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(100):
        sizes = generator.integers(50, 500, 60).astype(float)
        nats = sizes * np.log(2) * generator.normal(1.0, 0.2, 60)  # one bit a byte in the long run
        score = TextSums(nats, sizes, sizes).score(resamples=200)
        covered += score["low"] <= 1.0 <= score["high"]
    assert 0.88 <= covered / 100 <= 0.99


def test_bundles_of_many_documents_give_the_interval_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    from corpusmill.train import data as validation

    generator = np.random.default_rng(0)
    sizes = generator.integers(50, 500, 20_000).astype(float)
    bits = sizes * generator.normal(1.0, 0.2, 20_000)
    bundled = validation.bootstrap_ratio(bits, sizes, 400, 0)
    monkeypatch.setattr(validation, "MOST_UNITS", 20_000)
    alone = validation.bootstrap_ratio(bits, sizes, 400, 0)
    assert bundled[1] - bundled[0] == pytest.approx(alone[1] - alone[0], rel=0.15) and sum(bundled) == pytest.approx(sum(alone), rel=1e-3)
