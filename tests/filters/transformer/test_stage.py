"""The step in the stage: its report, its decisions, and the same bytes on Ray."""

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from corpusmill.filters.rules import read_rules
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage


@pytest.fixture
def make_run(tmp_path: Path, real_texts: list[str], make_documents: Callable, finished_ingest: Callable) -> Callable[[str], Storage]:
    def make(name: str) -> Storage:
        documents = make_documents(real_texts)
        return finished_ingest(tmp_path / name, [documents.slice(start, 60) for start in range(0, len(documents), 60)])

    return make


def files(run: Any) -> dict[str, bytes]:
    return {path: run.storage.read_bytes(path) for path in run.storage.list_files() if not path.startswith("manifest")}


@pytest.mark.long
def test_ray_and_one_process_write_the_same_bytes(
    regression: str, topics: str, real_texts: list[str], measure_step: Callable, make_run: Callable, run_filter: Callable,
    ray_engine: RayEngine,
) -> None:  # fmt: skip
    median = statistics.median(measure_step("transformer", {"model": regression}, real_texts)[0]["transformer"])
    steps = [
        {"transformer": {"model": regression, "name": "edu", "threshold": median}},
        {"transformer": {"model": topics, "name": "topic", "window": 40, "threshold": {"shop": 0.4}, "comparison": ">"}},
    ]
    inline = run_filter(make_run("inline"), {"steps": steps})
    ray_engine.connect()  # for so little it would not come up
    ray = run_filter(make_run("ray"), {"steps": steps}, ray_engine)
    assert files(ray) == files(inline)
    assert [row.identity for row in ray.manifest.rows()] == [row.identity for row in inline.manifest.rows()]
    shards = sorted(path for path in files(inline) if path.startswith("report/"))
    report = pa.concat_tables([read_table(inline.storage, path) for path in shards])
    failed, rows = report["failed"].to_pylist(), report.to_pylist()
    assert failed == [["edu"] * (row["edu"] < median) + ["topic_shop"] * (row["topic_shop"] > 0.4) for row in rows]
    assert 20 < sum(report["kept"].to_pylist()) < len(rows) - 20
    assert [rule["step"] for rule in read_rules(report.schema)] == ["transformer:edu", "transformer:topic"]
    data = read_table(inline.storage, "data/part-00000.parquet")
    assert data.schema.names[-5:] == ["edu", "edu_int", "topic_news", "topic_how_to", "topic_shop"]
    assert data["edu"].to_pylist() == [
        row["edu"] for row in read_table(inline.storage, "report/part-00000.parquet").to_pylist() if row["kept"]
    ]


def test_any_file_of_the_model_redoes_the_stage(regression: str, tmp_path: Path, make_run: Callable, run_filter: Callable) -> None:
    model = Path(shutil.copytree(regression, tmp_path / "model"))
    run, options = make_run("run"), {"steps": [{"transformer": {"model": str(model)}}]}
    first = run_filter(run, options)
    before = files(first)
    (model / "README.md").write_text("says nothing about scores")
    assert run_filter(run, options).performed == 0
    (model / "tokenizer_config.json").write_text((model / "tokenizer_config.json").read_text() + "\n")
    redone = run_filter(run, options)
    assert redone.performed == len(redone.manifest.rows()) and files(redone) == before
    weights = load_file(model / "model.safetensors")
    save_file({**weights, "classifier.bias": weights["classifier.bias"] + 1}, model / "model.safetensors", {"format": "pt"})
    changed = run_filter(run, options)
    assert changed.performed == len(changed.manifest.rows())
    old, new = (pa.BufferReader(table["report/part-00000.parquet"]) for table in (before, files(changed)))
    scores = [pa.parquet.read_table(table)["transformer"].to_numpy() for table in (old, new)]
    assert scores[1] - scores[0] == pytest.approx(1, abs=1e-5)
