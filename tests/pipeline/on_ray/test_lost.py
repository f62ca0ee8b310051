"""Work that does not end, workers that do not start, nodes that go away: the rest is done, and nobody pays for another's fault."""

import re
from pathlib import Path
from typing import Any

import pytest

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    for path in paths:
        path.write_text(f"a line of {path.name}\n")
    return [str(path) for path in paths]


def run(stages: Any, engine: Any, folder: Path, inputs: list[str], deeds: dict[int, str]) -> str:
    """Runs the stage, of which pieces can't be done; returns the sentence with which it ends."""
    params = [{"deed": deeds[number]} if number in deeds else {} for number in range(len(inputs))]
    stage = stages.LinesStage(stages.LinesConfig(), params)
    with pytest.raises(CorpusmillError) as caught:
        StageRun(stage, Storage(str(folder)), {}, inputs, engine, Progress(False)).execute()
    return str(caught.value)


def finished(folder: Path) -> list[str]:
    return sorted(Manifest(Storage(str(folder / "lines"))).tasks)


def test_what_hangs_in_this_process_is_ended_named_and_given_up(stages: Any, tmp_path: Path, inputs: list[str]) -> None:
    said = run(stages, InlineEngine(task_timeout=0.5), tmp_path / "run", inputs, {0: "sleep", 2: "spin", 3: "regex"})
    assert said.startswith("lines: 3 tasks failed, all others are done, and the stage needs them: ")
    for number in (0, 2, 3):
        sentence = (
            rf"lines, task part-0000{number} \(\S*/{number}\.txt\): it was not done after 0\.5 seconds \(--task-timeout\), in process"
        )
        assert re.search(sentence, said)
    assert said.count("for_ray/lines.py, line ") == 3  # where it hung
    assert finished(tmp_path / "run") == ["part-00001", "part-00004"]


def test_what_hangs_in_a_worker_is_ended_even_in_native_code_and_the_rest_is_done(
    stages: Any, engine: RayEngine, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "task_timeout", 3.0)
    said = run(stages, engine, tmp_path / "run", inputs, {0: "regex", 2: "deaf"})
    assert re.search(r"task part-00000 \(\S*/0\.txt\): it was not done after 3 seconds \(--task-timeout\), in process \(", said)
    assert re.search(r"task part-00002 \(\S*/2\.txt\): it was not done after 3 seconds \(--task-timeout\)\.", said)
    assert finished(tmp_path / "run") == ["part-00001", "part-00003", "part-00004"]
    quarantined = Manifest(Storage(str(tmp_path / "run/lines"))).quarantined
    assert {key: row.tries for key, row in quarantined.items()} == {"part-00000": 2, "part-00002": 2}
