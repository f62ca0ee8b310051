"""Tests the runner: resume, redo, cleaning and failure, with a real (tiny) stage on the inline engine."""

from pathlib import Path

import pyarrow as pa
import pytest
from stage_runs import perform

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.manifest import FileRef, Manifest
from corpusmill.pipeline.runner import WORKING, StageRun, remove_unnamed
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import TEMPORARY, Storage


class SquareConfig(Config):
    numbers: list[int] = [1, 2, 3]


PERFORMED: list[str] = []


class SquareWorker(Worker):
    def process(self, task: Task) -> Output:
        PERFORMED.append(task.key)
        number = task.params["number"]
        table = pa.table({"square": [number * number * self.params["factor"]]})
        return Output({f"data/{task.key}.parquet": table}, rows_in=1, kept=1)


class SquareStage(Stage):
    name = "ingest"
    Config = SquareConfig

    def execute(self, run: StageRun) -> None:
        tasks = [Task(f"part-{i:05d}", (FileRef("n", str(n)),), {"number": n}) for i, n in enumerate(self.config.numbers)]
        rows = run.map("", SquareWorker, tasks, {"factor": 10})
        total = sum(row.rows_in for row in rows)
        run.once(
            "total", [row.ref("ingest", row.outputs[0].path) for row in rows], lambda identity: Output({"total.txt": str(total).encode()})
        )


def execute(folder, **config) -> StageRun:
    PERFORMED.clear()
    stage = SquareStage(SquareConfig(**config))
    return perform(Storage(str(folder)), stage)


def values(folder) -> list[int]:
    storage = Storage(str(folder / "ingest"))
    return [read_table(storage, p)["square"][0].as_py() for p in storage.list_files("data")]


def test_all_pieces_are_performed_once_and_then_taken_over(tmp_path):
    run = execute(tmp_path)
    assert values(tmp_path) == [10, 40, 90] and run.performed == 4
    before = (tmp_path / "ingest/manifest.jsonl").read_bytes()
    again = execute(tmp_path)
    assert PERFORMED == [] and again.performed == 0
    assert (tmp_path / "ingest/manifest.jsonl").read_bytes() == before


def test_a_lost_or_shortened_output_is_made_again(tmp_path):
    execute(tmp_path)
    (tmp_path / "ingest/data/part-00001.parquet").unlink()
    (tmp_path / "ingest/data/part-00002.parquet").write_bytes(b"short")
    execute(tmp_path)
    assert PERFORMED == ["part-00001", "part-00002"] and values(tmp_path) == [10, 40, 90]


def test_another_input_redoes_its_task_and_what_is_no_longer_planned_is_removed(tmp_path):
    execute(tmp_path)
    (tmp_path / "ingest/data/.tmp-77-part-00000.parquet").write_bytes(b"left by a killed process")
    execute(tmp_path, numbers=[5])
    assert values(tmp_path) == [250]
    assert Manifest(Storage(str(tmp_path / "ingest"))).plan == ["part-00000", "total"]
    assert (tmp_path / "ingest/total.txt").read_text() == "1"


def test_files_of_a_try_that_was_broken_off_are_not_taken_for_the_old_ones(tmp_path, monkeypatch):
    """A run on another input is killed between a file and its row; for the first input, the file has the right size but is wrong."""
    execute(tmp_path)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "ingest/data").iterdir())}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Manifest, "append", lambda manifest, row: (_ for _ in ()).throw(KeyboardInterrupt))
        execute(tmp_path, numbers=[4, 2, 3])
    assert PERFORMED == ["part-00000"] and values(tmp_path) == [160, 40, 90]
    assert [path.stat().st_size for path in before] == [len(content) for content in before.values()]
    execute(tmp_path)
    assert PERFORMED == ["part-00000"] and all(path.read_bytes() == content for path, content in before.items())
    assert not Manifest(Storage(str(tmp_path / "ingest"))).doubtful


class PartConfig(Config):
    factor: int = 2


class WholeConfig(PartConfig):
    offset: int = 0


SEEN: list[tuple[str, Config]] = []


class PartWorker(Worker):
    def process(self, task: Task) -> Output:
        SEEN.append((task.key, self.config))
        return Output({f"{task.key}.txt": str(self.config.model_dump()).encode()}, rows_in=1)


class PartStage(Stage):
    """Two phases and two single tasks; the first of each depends on a part of the section only."""

    name = "ingest"
    Config = WholeConfig

    def execute(self, run: StageRun) -> None:
        part = PartConfig(factor=self.config.factor)
        first = run.map("first", PartWorker, [Task(f"first-{i}", ()) for i in range(2)], None, part)
        inputs = [row.ref("ingest", row.outputs[0].path) for row in first]
        run.once("sum", inputs, lambda _: Output({"sum.txt": b"1"}), None, part)
        run.map("second", PartWorker, [Task("second", tuple(inputs))])
        run.once("end", inputs, lambda _: Output({"end.txt": b"2"}))


def parts(folder, **config) -> tuple[list[str], StageRun]:
    SEEN.clear()
    stage = PartStage(WholeConfig(**config))
    run = perform(Storage(str(folder)), stage)
    return [key for key, _ in SEEN], run


def test_a_phase_depends_on_its_part_of_the_section_alone(tmp_path):
    keys, run = parts(tmp_path)
    assert keys == ["first-0", "first-1", "second"] and run.performed == 5
    assert [type(config) for _, config in SEEN] == [PartConfig, PartConfig, WholeConfig]
    assert (tmp_path / "ingest/first-0.txt").read_text() == "{'factor': 2}"
    keys, run = parts(tmp_path, offset=1)
    assert keys == ["second"] and run.performed == 2
    keys, run = parts(tmp_path, offset=1, factor=3)
    assert keys == ["first-0", "first-1", "second"] and run.performed == 5
    digests = {row.task: row.config for row in run.manifest.rows()}
    assert digests["first-0"] == digests["sum"] != digests["second"] == digests["end"]


def test_what_is_named_stays_and_working_state_but_for_what_a_kill_left(tmp_path: Path) -> None:
    stay = ["manifest.jsonl", "data/part-00000.parquet", "checkpoints/step-10/model.safetensors", "logs/rank-0.txt"]
    stay.append(f"checkpoints/{TEMPORARY}step-20/model.safetensors")  # a state's folder, which its owner cleans up
    go = ["data/part-00001.parquet", f"data/{TEMPORARY}7-part-00000.parquet", f"checkpoints/{TEMPORARY}7-reference-1.safetensors"]
    for path in (*stay, *go):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    remove_unnamed(Storage(str(tmp_path)), stay[:2], WORKING)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(stay)
