"""Tests what is measured of reference documents, against a forward pass by hand."""

import json
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import corpusmill
from corpusmill.ablate.corpora import reference_files
from corpusmill.ablate.proxy import References
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.model import Llama
from corpusmill.train.options import ModelConfig
from corpusmill.train.parallel.model import ParallelModel


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    manual = "\n".join(text for _, text in sorted(topics.items()))
    items = [(f"Question: what is {n} and {n}?\nAnswer: it is {2 * n}.", f" it is {2 * n}.") for n in range(40)]
    for name, content in (reference_files("texts", [(manual[:3000], None)]) | reference_files("items", items)).items():
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


def test_of_an_item_the_answer_is_measured(references: Path) -> None:
    content = (references / "run/tokenizer/tokenizer.json").read_bytes()
    shards = TokenShards(references / "run/tokens/train")
    judges = References(str(references / "run/tokens/train"), content, shards.description.tokenizer_sha256, context=4096)
    torch.manual_seed(0)
    model = Llama(ModelConfig(preset="0.8m", context=4096).architecture(512))
    measured = {row["document"]: row for row in judges.nats(ParallelModel(model, "fp32"), torch.device("cpu")).to_pylist()}
    tokenizer, answers = Tokenizer.from_str(content.decode()), 0
    for row in shards.index(0).to_pylist():
        found = measured[row["id"]]
        ids = shards.tokens(0)[row["first"] : row["first"] + row["tokens"] - 1].astype(np.int64)  # without the token that ends it
        text = tokenizer.decode(ids.tolist())
        counted = np.ones(len(ids), bool)
        if Path(row["source"]).stem == "items":
            begin, answers = text.index("Answer:") + len("Answer:"), answers + 1
            starts = np.cumsum([0, *(len(tokenizer.decode([token])) for token in ids.tolist()[:-1])])
            counted = starts >= begin
        rows = torch.tensor([shards.end_of_text_id, *ids.tolist()])[None]
        with torch.no_grad():
            nats = torch.nn.functional.cross_entropy(model(rows[:, :-1])[0], rows[0, 1:], reduction="none").numpy()
        assert found["tokens"] == counted.sum()
        assert found["utf8_bytes"] == len(text if counted.all() else text[begin:])
        assert found["nats"] == pytest.approx(nats[counted].sum(), rel=1e-4)  # documents of one row share sums of another order
    assert answers == 40
