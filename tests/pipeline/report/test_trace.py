import io
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.trace import trace


def walk(run: Path, token: int, split: str = "train", shard: int = 0, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    trace(str(run), shard, token, split, console)
    return re.sub(r"\s+", " ", console.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_token_leads_to_its_document(run_folder: Path, split: str) -> None:
    folder = run_folder / "tokens" / split
    ids = np.fromfile(folder / "tokens-00000.bin", "<u2")
    index = pq.read_table(folder / "tokens-00000.index.parquet").to_pylist()
    tokenizer = Tokenizer.from_file(str(run_folder / "tokenizer" / "tokenizer.json"))
    texts = {r["id"]: r["text"] for r in pq.read_table(run_folder / "dedup" / "data" / "part-00000.parquet").to_pylist()}
    for token in (0, 1, len(ids) // 2, len(ids) - 1):
        row = next(r for r in index if r["first"] <= token < r["first"] + r["tokens"])
        text = walk(run_folder, token, split)
        assert row["id"] in text and f"{row['source']}, offset {row['offset']}, length {row['length']}" in text
        assert f"{row['data_file']}, row {row['data_row']}" in text
        assert tokenizer.decode(ids[row["first"] : row["first"] + row["tokens"] - 1].tolist()) == texts[row["id"]]
        around = tokenizer.decode(ids[max(row["first"], token - 5) : token].tolist())
        assert re.sub(r"\s+", " ", around).strip() in text
        assert "filter words" in text and "language_score" in text


def test_what_is_not_there(run_folder: Path, tmp_path: Path) -> None:
    total = (run_folder / "tokens" / "train" / "tokens-00000.bin").stat().st_size // 2
    with pytest.raises(InputError, match=f"there is no token {total}; it has {total}"):
        walk(run_folder, total)
    with pytest.raises(InputError, match="there is no shard 7"):
        walk(run_folder, 0, shard=7)
    with pytest.raises(InputError, match=r"no token shards of the split 'test' \(there are train, validation\)"):
        walk(run_folder, 0, split="test")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run: corpusmill tokens"):
        walk(tmp_path, 0)
