"""Where a transformers model lies: a folder that the user gives, or one of Hugging Face's hub, fetched into the hub's own cache.

Only weights in safetensors are used, and no code that comes with a model is run: a model may come from a stranger.
"""

import fnmatch
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from corpusmill.pipeline.errors import ConfigError

EXTRA = "pip install 'corpusmill[transformers]'"
CONFIG = "config.json"
WEIGHTS = "*.safetensors"
#: What decides about a score: weights, configuration, and whatever a tokenizer is made of.
DECIDING = (
    CONFIG, WEIGHTS, "*.safetensors.index.json",
    "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
NEITHER = "there is no such folder, and it is no name of a model on Hugging Face's hub"
#: The hub's errors, the special ones before those that they are made of.
REASONS = {
    "GatedRepoError": "its owner wants to be asked: accept the terms on its page and log in with `hf auth login`",
    "RepositoryNotFoundError": "there is none of this name, or it is private",
    "RevisionNotFoundError": "it has no such revision",
    "LocalEntryNotFoundError": "it is not in the cache, and the hub can't be reached or HF_HUB_OFFLINE is set",
}
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def need_extra() -> None:
    """Raises ConfigError in one sentence where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"the step transformer needs the package transformers: {EXTRA}.")


def model_folder(model: str, revision: str | None = None) -> Path:
    """The local folder of a model: itself where it is one, else that of the hub's cache, fetched if need be.

    A `revision` (branch, tag or commit; None: main) that is in the cache is used as it is, so a branch stays what it was when it was
    fetched. Raises ConfigError in one sentence.
    """
    need_extra()
    folder = Path(model)
    if folder.is_dir():
        _check(folder, model)
        return folder
    if folder.is_absolute() or not HUB_NAME.fullmatch(model):
        raise ConfigError(f"{model}: {NEITHER}.")
    folder = _hub_folder(model, revision)
    _check(folder, f"{model}, as far as Hugging Face's hub or the cache of it give it here")
    return folder


def _hub_folder(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(model, revision=revision, local_files_only=True))
        if _names(cached, CONFIG) and _names(cached, WEIGHTS):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ConfigError(f"{model}: {NEITHER}.") from error
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(DECIDING)))
    except Exception as error:
        raise ConfigError(f"{model}: there is no such folder, and it can't be had from Hugging Face's hub ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    """The hub's errors in half a sentence: they are paragraphs with links."""
    for kind, reason in REASONS.items():
        if kind in (base.__name__ for base in type(error).__mro__):
            return reason
    line = (str(error).strip().splitlines() or [""])[0].strip().rstrip(".:")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _names(folder: Path, *patterns: str) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def _check(folder: Path, model: str) -> None:
    if not _names(folder, CONFIG):
        raise ConfigError(f"{model}: not a transformers model (it has no {CONFIG}).")
    if not _names(folder, WEIGHTS):
        raise ConfigError(f"{model}: has no weights in safetensors, and pickled ones are not read (convert them with save_pretrained).")


def deciding_files(folder: Path) -> list[str]:
    """Paths of all files of a model's folder that decide about a score."""
    return [str(folder / name) for name in _names(folder, *DECIDING)]


def read_description(folder: Path) -> dict[str, Any]:
    """The model's `config.json`. Raises ConfigError in one sentence."""
    path = folder / CONFIG
    try:
        description = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a model's configuration ({error}).") from error
    if not isinstance(description, dict) or "model_type" not in description:
        raise ConfigError(f"{path}: not a model's configuration (it names no model_type).")
    return description


def read_labels(description: dict[str, Any]) -> tuple[str, ...]:
    """A model's labels in the order of its outputs, as transformers takes them from a configuration (by default two)."""
    named = description.get("id2label")
    if isinstance(named, dict) and named:
        return tuple(str(name) for _, name in sorted(named.items(), key=lambda item: int(item[0])))
    return tuple(f"LABEL_{number}" for number in range(int(description.get("num_labels") or 2)))
