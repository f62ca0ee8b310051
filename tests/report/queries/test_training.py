"""Tests the report on trainings: curves, scores by group, speed, generated texts; and damaged or hostile logs."""

import json
import math
from pathlib import Path

import pytest
from printed_queries import not_reproduced
from printing import printed

from corpusmill.report.answers.terminal import render_report
from corpusmill.report.page.figures import training_charts
from corpusmill.report.page.html import render
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.queries.training import SPEED_POINTS, Training, read_training
from corpusmill.report.read import RunReader

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e"
STEPS = 1500


def log_lines() -> list[dict]:
    lines = [{"step": step, "loss": 5 * math.exp(-step / 300), "lr": 1e-3, "grad_norm": 1 + step % 7} for step in range(STEPS)]
    for step in (700, 701):
        lines[step] |= {"loss": "nan", "skipped": "loss is nan", "documents": ["x"]}
    for step in range(99, STEPS, 100):
        bits = 2 - step / STEPS
        groups = {"language": {"en": bits, HOSTILE: "inf"}}
        lines[step] |= {
            "validation_bits_per_byte": bits,
            "validation_low": bits - 0.1,
            "validation_high": bits + 0.2,
            "validation_by": groups,
        }
    return lines


def write(folder: Path, **files: list) -> RunReader:
    for name, lines in files.items():
        path = folder / "pretrain" / "logs" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps({"recipe": {"pretrain": {}}}))
    return RunReader(str(folder))


def speed_lines() -> list[dict]:
    return [
        {"step": step, "seconds": 0.5, "waited": 0.01, "tokens_per_second": 1000 + step % 3, "flops_per_second": 2e9,
         "memory_bytes": 10**9 + step} for step in range(STEPS)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples = [{"step": step, "samples": [{"document": "d1", "prompt": "Once", "text": f" upon {step} {HOSTILE}"}]} for step in (99, 199)]
    write(tmp_path, train=log_lines(), speed=speed_lines(), samples=samples)
    return tmp_path


@pytest.fixture
def training(folder: Path) -> Training:
    (found,) = read_training(RunReader(str(folder)))
    return found


def chart(training: Training, title: str) -> tuple[str, dict]:
    return next((caption, figure) for name, caption, figure, _ in training_charts(training) if name == title)


def test_skipped_steps_are_marked_where_the_curve_was(training: Training) -> None:
    caption, figure = chart(training, "Loss")
    curve, marks = figure["series"]
    assert caption.endswith("2 skipped steps are marked") and marks["x"] == [700, 701] and marks["kind"] == "points"
    assert marks["y"] == pytest.approx([5 * math.exp(-699 / 300)] * 2, rel=0.02) and training.not_finite == 2
    assert all(math.isfinite(value) for value in curve["y"])


def test_speed_is_that_of_the_middle_step(training: Training) -> None:
    speed = training.speed
    assert speed and (speed.tokens_per_second, speed.flops_per_second, speed.mfu) == (1001, 2e9, None)
    assert speed.waited == pytest.approx(0.02) and speed.memory_bytes == 10**9 + STEPS - 1 and speed.cuda_bytes is None
    _, figure = chart(training, "Speed")
    assert len(figure["series"][0]["x"]) <= SPEED_POINTS and set(figure["series"][0]["y"]) <= {1000, 1000.5, 1001, 1001.5, 1002}


def test_groups_come_from_the_finished_model_else_from_the_log(folder: Path) -> None:
    (training,) = read_training(RunReader(str(folder)))
    assert [(g.name, g.bits, g.low) for g in training.groups["language"]] == [
        ("en", pytest.approx(2 - 1499 / STEPS), None),
        (HOSTILE, math.inf, None),
    ]
    measured = {"bits_per_byte": 1.25, "low": 1.2, "high": 1.3, "documents": 7, "utf8_bytes": 700}
    metrics = {"loss": 1.0, "validation": {"bits_per_byte": 1.25, "by": {"host": {"a.test": measured}}}}
    (folder / "pretrain" / "metrics.json").write_text(json.dumps(metrics))
    (training,) = read_training(RunReader(str(folder)))
    (group,) = training.groups["host"]
    assert list(training.groups) == ["host"] and vars(group) == {
        "name": "a.test",
        "bits": 1.25,
        **{k: measured[k] for k in list(measured)[1:]},
    }
    page = render(read_summary(str(folder)))
    assert "Validation by host" in page and "1.200 to 1.300" in page and "validation.by.host" not in page


def test_the_page_and_the_terminal_show_it_harmless(folder: Path) -> None:
    page = render(read_summary(str(folder)))
    for part in ("1,001 tokens/s", "2.00% of the time was spent waiting for batches", "1.00 GB of memory", "2 GFLOP/s",
                 "What the model wrote after 200 steps", "pretrain: steps that were skipped: 2."):  # fmt: skip
        assert part in page, part
    assert "<script>alert" not in page and "<img" not in page and "\x1b" not in page and "\u202e" not in page
    assert page.index("upon 199") < page.index("upon 99")
    text = printed(render_report, str(folder))
    line = next(line for line in text.splitlines() if line.startswith("pretrain "))
    assert line.split()[:2] == ["pretrain", "1,500"] and line.split()[-2:] == ["1.001", "1,001"]
    assert all(len(line) <= 80 for line in text.splitlines() if "corpusmill" not in line)


@pytest.mark.parametrize(
    "name, line",
    [
        ("train", {"step": 3, "validation_by": {"language": 3}, "validation_low": "x", "validation_bits_per_byte": 1.0, "loss": {}}),
        ("speed", {"step": 3, "tokens_per_second": None, "seconds": "nan"}), ("speed", "{cut"),
        ("samples", {"step": 3, "samples": [3, {"text": 5}]}),
    ],
)  # fmt: skip
def test_damaged_logs_give_a_page(tmp_path: Path, name: str, line: object) -> None:
    whole = {"train": [{"step": 0, "loss": 1.0}], "speed": [], "samples": []}
    write(tmp_path, **{**whole, name: [*whole[name], line]})
    assert "pretrain: " in render(read_summary(str(tmp_path)))


def test_the_queries_give_what_is_drawn_and_said(folder: Path) -> None:
    assert not_reproduced(str(folder)) == []
