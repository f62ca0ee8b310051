"""The filter stage: measures every document with every step of the recipe, then decides which ones go on."""

from pathlib import PurePosixPath
from typing import Any

from corpusmill.filters import share_phases
from corpusmill.filters.classifier import record
from corpusmill.filters.config import FilterConfig
from corpusmill.filters.registry import build_steps
from corpusmill.filters.worker import FilterWorker
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece, Stage


class FilterStage(Stage):
    name = "filter"
    Config = FilterConfig
    config: FilterConfig

    def execute(self, run: StageRun) -> None:
        record.execute(run, self.config)
        pieces, params = self.tasks(run)
        gpus = max((step.step.gpus for step in build_steps(self.config.steps)), default=0.0)
        if share_phases.keeps_shares(self.config):
            rows = share_phases.execute(run, self.config, pieces, params, gpus)
        else:
            rows = run.map("", FilterWorker, pieces, params, gpus=gpus, separable=True)
        record.count_answers(run, self.config, rows)

    def tasks(self, run: StageRun) -> tuple[list[Piece], dict[str, Any]]:
        """A piece for each shard that comes in, and the parameters of all."""
        pieces = [Piece(PurePosixPath(shard.path).stem, (shard,)) for shard in run.documents()]
        return pieces, {"models": [digest for step in build_steps(self.config.steps) for digest in step.step.model_digests()]}

    def summary(self, run: StageRun) -> dict[str, str]:
        """How many documents each rule fails, the most severe first; and the thresholds that keep a share of the corpus."""
        failed: dict[str, int] = {}
        for row in run.manifest.rows():
            for name, count in row.counts.items():
                failed[name] = failed.get(name, 0) + count
        most = sorted((item for item in failed.items() if item[1]), key=lambda item: (-item[1], item[0]))
        lines = {"failed": ", ".join(f"{name.removeprefix('failed ')} {count:,}" for name, count in most[:8])} if most else {}
        return lines | share_phases.summary(run, self.config)
