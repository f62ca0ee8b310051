"""Where the files of a recipe lie plays no part in a task's identity, what is in them does."""

from pathlib import Path

import pytest

from corpusmill.filters.step import build_steps
from corpusmill.filters.worker import FilterConfig
from corpusmill.pipeline.config import config_digest

STEP = """
from corpusmill.filters.own import measures

@measures(columns={"one": "int64"})
def one(batch, times=1):
    return {"one": [times] * len(batch)}
"""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "steps.py").write_text(STEP)
    return [tmp_path / "here", tmp_path / "there"]


def config(folder: Path, **options: object) -> FilterConfig:
    steps = [{"python": {"function": "steps.py:one", "options": options}}]
    return FilterConfig.model_validate({"steps": steps}, context={"folder": str(folder)})


def test_the_same_files_elsewhere_are_the_same_configuration(folders: list[Path]) -> None:
    here, there = (config(folder) for folder in folders)
    assert here.steps != there.steps  # each names its own file
    assert config_digest(here) == config_digest(there)
    assert config_digest(here) != config_digest(config(folders[1], times=2))


def test_other_content_is_told_by_the_models_digests(folders: list[Path]) -> None:
    digests = [[d for step in build_steps(config(folder).steps) for d in step.step.model_digests()] for folder in folders]
    assert digests[0] == digests[1] and len(digests[0]) == 1
    (folders[1] / "steps.py").write_text(STEP + "# changed\n")
    assert [d for step in build_steps(config(folders[1]).steps) for d in step.step.model_digests()] != digests[0]
