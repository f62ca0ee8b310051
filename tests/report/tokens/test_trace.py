"""Tests `trace` from the shard's side: any token leads to its text, its document and its values."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from printing import printed
from tokenizers import Tokenizer

from corpusmill.report.tokens.trace import show_trace, trace


def walk(run: Path, token: int, split: str = "train", shard: int = 0, width: int = 200) -> str:
    return re.sub(r"\s+", " ", printed(show_trace, trace(str(run), shard, token, split), False, width=width))


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """Copies the run, so that a test may damage it."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def test_every_token_leads_to_its_document(run_folder: Path) -> None:
    folder = run_folder / "tokens" / "train"
    ids = np.fromfile(folder / "tokens-00000.bin", "<u2")
    index = pq.read_table(folder / "tokens-00000.index.parquet").to_pylist()
    tokenizer = Tokenizer.from_file(str(run_folder / "tokenizer" / "tokenizer.json"))
    texts = {r["id"]: r["text"] for r in pq.read_table(run_folder / "dedup" / "data" / "part-00000.parquet").to_pylist()}
    for token in (0, len(ids) // 2, len(ids) - 1):
        row = next(r for r in index if r["first"] <= token < r["first"] + r["tokens"])
        text = walk(run_folder, token)
        assert row["id"] in text and f"{row['source']}, offset {row['offset']}, length {row['length']}" in text
        assert f"{row['data_file']}, row {row['data_row']}" in text
        assert tokenizer.decode(ids[row["first"] : row["first"] + row["tokens"] - 1].tolist()) == texts[row["id"]]
        around = tokenizer.decode(ids[max(row["first"], token - 5) : token].tolist())
        assert re.sub(r"\s+", " ", around).strip() in text
        found = trace(str(run_folder), 0, token, "train")
        assert found.notes == [] and f"corpusmill why {run_folder} {row['id']}" in text


def test_json_is_one_object_with_everything(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(show_trace, trace(str(run_folder), 0, 5, "validation"), True)
    found = json.loads(capsys.readouterr().out)
    index = pq.read_table(run_folder / "tokens/validation/tokens-00000.index.parquet").to_pylist()[0]
    assert found["document"] == {name: index[name] for name in found["document"]} and set(index) == set(found["document"])
    assert found["id"] == int(np.fromfile(run_folder / "tokens/validation/tokens-00000.bin", "<u2")[5])
    assert (found["split"], found["shard"], found["token"], found["batch"], found["notes"]) == ("validation", 0, 5, None, [])
    assert found["run"] == str(run_folder)


def test_hostile_text_is_harmless(run_folder: Path, copy: Path) -> None:
    index = pq.read_table(run_folder / "tokens/train/tokens-00000.index.parquet").to_pylist()
    row = next((r for r in index if "evil" in r["url"]), index[0])
    shown = "".join(walk(run_folder, token) for token in range(row["first"], row["first"] + min(row["tokens"], 60), 10))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)


def test_a_run_in_which_something_is_gone_or_changed(copy: Path) -> None:
    """The address is still given, with a sentence on missing or changed files."""
    before = walk(copy, 5)
    data = copy / "dedup/data/part-00000.parquet"
    table = pq.read_table(data)
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), data)
    assert "row 0, holds another text now" in walk(copy, 5)
    data.unlink()
    gone = walk(copy, 5)
    assert "has no row 0 any more" in gone and gone.startswith(before[:300])
    tokenizer = copy / "tokenizer/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert "is not the tokenizer that made these tokens" in walk(copy, 5) and "⟦" not in walk(copy, 5)
    tokenizer.unlink()
    assert "is not there, so the text is not shown" in walk(copy, 5)


def test_an_id_beyond_the_vocabulary(copy: Path) -> None:
    path = copy / "tokens/train/tokens-00000.bin"
    ids = np.fromfile(path, "<u2")
    ids[5] = 60_000
    ids.tofile(path)
    assert "hold ids beyond the vocabulary (corpusmill verify" in walk(copy, 3) and "id 60000" in walk(copy, 5)
