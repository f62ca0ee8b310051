"""Tests what is measured of reference documents, against a forward pass by hand."""

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import corpusmill
from corpusmill.ablate.config import BANDS
from corpusmill.ablate.corpora import reference_files
from corpusmill.ablate.proxy import References
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.model import Llama
from corpusmill.train.options import ModelConfig
from corpusmill.train.parallel.model import ParallelModel


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    manual = "\n".join(text for _, text in sorted(topics.items())).encode("ascii", "ignore").decode()  # a token, then, is whole characters
    items = [(f"Question: what is {n} and {n}?\nAnswer: it is {2 * n}.", f" it is {2 * n}.") for n in range(40)]
    texts: list[tuple[str, str | None]] = [(manual[begin : begin + 6000], None) for begin in range(0, 90_000, 6000)]
    for name, content in (reference_files("texts", texts) | reference_files("items", items)).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "manual.jsonl").write_text(json.dumps({"text": manual}) + "\n")
    corpusmill.run(
        {"ingest": {}, "tokenizer": {"vocab_size": 512, "judge": {"compare": []}}},
        folder / "manual.jsonl",
        folder / "tokenizer",
        engine="inline",
    )
    recipe = {
        "ingest": {}, "tokenizer": {"file": str(folder / "tokenizer/tokenizer/tokenizer.json"), "judge": {"compare": []}},
        "tokens": {"validation_share": 0.0},
    }  # fmt: skip
    corpusmill.run(recipe, [folder / "references"], folder / "run", engine="inline")
    return folder


@pytest.fixture(scope="module")
def judges(references: Path) -> References:
    content = (references / "run/tokenizer/tokenizer.json").read_bytes()
    sha256 = TokenShards(references / "run/tokens/train").description.tokenizer_sha256
    return References(str(references / "run/tokens/train"), content, sha256, context=1024)


@pytest.fixture(scope="module")
def model() -> Llama:
    torch.manual_seed(0)
    return Llama(ModelConfig(preset="0.8m", context=1024).architecture(512))


def nats_of(model: Llama, end_of_text: int, ids: list[int]) -> np.ndarray:
    """Returns the nats of each token of a document by one forward pass."""
    rows = torch.tensor([end_of_text, *ids])[None]
    with torch.no_grad():
        found: np.ndarray = torch.nn.functional.cross_entropy(model(rows[:, :-1])[0], rows[0, 1:], reduction="none").numpy()
    return found


def test_bands_of_documents_and_answers_of_items_are_measured(references: Path, judges: References, model: Llama) -> None:
    shards = judges.shards
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    for row in judges.nats(ParallelModel(model, "fp32"), torch.device("cpu")).to_pylist():
        measured.setdefault(row["document"], {})[row["band"]] = row
    tokenizer, answers = Tokenizer.from_file(str(references / "run/tokenizer/tokenizer.json")), 0
    for row in shards.index(0).to_pylist():
        ids = shards.tokens(0)[row["first"] : row["first"] + row["tokens"] - 1].tolist()[:1024]  # without the token that ends it
        sizes = np.array([len(tokenizer.decode([token])) for token in ids])
        counted = np.ones(len(ids), bool)
        if Path(row["source"]).stem == "items":
            text, answers = tokenizer.decode(ids), answers + 1
            counted = np.cumsum([0, *sizes[:-1]]) >= text.index("Answer:") + len("Answer:")
        nats = nats_of(model, shards.end_of_text_id, ids)
        for band, (begin, end) in enumerate(BANDS):
            some = np.flatnonzero(counted[begin:end]) + begin
            found = measured[row["id"]].get(band, {"tokens": 0, "utf8_bytes": 0, "nats": 0.0})
            assert (found["tokens"], found["utf8_bytes"]) == (len(some), sizes[some].sum())
            assert found["nats"] == pytest.approx(nats[some].sum(), rel=1e-4)  # a batch sums in another order
    assert answers == 40 and {band for bands in measured.values() for band in bands} == {0, 1, 2}


def test_the_next_paragraph_is_chosen_by_what_the_text_before_adds(judges: References, model: Llama) -> None:
    table = judges.choose(ParallelModel(model, "fp32"), torch.device("cpu"))
    assert len(table) == len(judges.choices) > 5
    begins = {judge.name: judge.ids.tolist() for judge in judges.documents}
    for number, (row, (judge, before, parts)) in enumerate(zip(table.to_pylist(), judges.choices, strict=True)):
        whole, place = begins[judge.name], len(before)
        assert row["document"] == judge.name and len(before) >= 256 and b"\n" in judges.bytes.bytes_of[before[-1]]
        assert parts[0].tolist() == whole[place : place + 64]
        assert any(parts[1].tolist() == whole[later : later + 64] for later in range(place + 3 * 64, len(whole)))
        assert parts[2].tolist() == judges.choices[number - 1][2][0].tolist()
        for name, part in zip(("next", "later", "other"), parts, strict=True):
            alone, after = (nats_of(model, judges.shards.end_of_text_id, ids)[-64:] for ids in (part.tolist(), [*before, *part]))
            assert row[name] == pytest.approx(alone.sum() - after.sum(), abs=0.02)
