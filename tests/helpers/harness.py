"""Runs lm-evaluation-harness on local files of items: its own YAML, with another path of the data set."""

import os
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DISABLE_MULTIPROC": "1"}

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

YAMLS = {
    "blimp": "blimp/_template_yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
    "sciq": "sciq/sciq.yaml",
}


def harness_model(folder: Path, batch: int = 4) -> HFLM:
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch)


def harness_task(name: str, items: Path, cache: Path) -> ConfigurableTask:
    """Returns the task `name` on the JSON lines of `items`, from which few-shot examples come, too."""
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / YAMLS[name], resolve_func=True)
    config = {key: value for key, value in config.items() if key not in ("dataset_name", "training_split", "test_split", "tag", "group")}
    files = {"test": str(items)}
    config |= {
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files, "cache_dir": str(cache)},
        "validation_split": None, "test_split": "test", "fewshot_split": "test",
    }  # fmt: skip
    return ConfigurableTask(config=config)


def harness_scores(model: HFLM, task: ConfigurableTask, shots: int) -> tuple[dict[str, Any], list[Any]]:
    """Returns (metrics as `name,filter`, samples in the order of the items). Like `simple_evaluate` without its look at the machine."""
    name = task.config.task
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    found = evaluate(model, {name: task}, bootstrap_iters=100)
    return found["results"][name], sorted(found["samples"][name], key=lambda sample: (sample["filter"], sample["doc_id"]))
