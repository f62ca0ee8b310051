"""`RUN/filter/classifiers/NAME.json`: the description of each classifier that a run has used, with what is known of its training.

The task's row of the manifest names the models' files with their sha256, and the steps of the recipe are compared with them when a run
is resumed.
"""

import json
import os

from corpusmill.filters.classifier.resolve import Resolved
from corpusmill.filters.classifier.step import ScoringStep
from corpusmill.filters.config import FilterConfig
from corpusmill.filters.registry import build_steps
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output

TASK, FOLDER = "classifiers", "classifiers"


def execute(run: StageRun, config: FilterConfig) -> None:
    """Writes the descriptions, where the recipe has classifiers."""
    used: dict[str, Resolved] = {}
    for step in build_steps(config.steps):
        if isinstance(step.step, ScoringStep):
            step.step.prepare(lambda sentence: run.progress.console.print(sentence, style="dim", markup=False, soft_wrap=True))
            used |= {name + step.suffix: resolved for name, resolved in step.step.classifiers().items()}
    if used:
        inputs = [ref for name in used for ref in _files(name, used[name])]
        files = {f"{FOLDER}/{name}.json": _description(resolved) for name, resolved in used.items()}
        run.once(TASK, inputs, lambda _: Output(dict(files)), {"descriptions": [each.decode() for each in files.values()]})


def _files(name: str, resolved: Resolved) -> list[FileRef]:
    """The classifier's files, under its name: where they lie on this machine is no matter."""
    sizes = {file: os.path.getsize(resolved.folder / file) for file in resolved.files}
    return [FileRef(f"{name}/{file}", sha256, sizes[file]) for file, sha256 in sorted(resolved.files.items())]


def _description(resolved: Resolved) -> bytes:
    return (json.dumps(resolved.classifier.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()
