"""Makes a run up to its pre-trained model, small enough for a test."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import stage_runs

import corpusmill.train  # noqa: F401 - before torch, so that idle threads sleep: see there
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage

SUBJECTS = ("The mill", "A river", "This wheel", "Our village", "The old miller", "Every farmer", "A merchant")
VERBS = ("grinds", "carries", "turns", "keeps", "sells", "remembers", "measures")
OBJECTS = ("the grain", "heavy stones", "clear water", "white flour", "many stories", "the winter wheat", "a wooden cart")


def sentences(generator: random.Random, count: int) -> str:
    parts = [f"{generator.choice(SUBJECTS)} {generator.choice(VERBS)} {generator.choice(OBJECTS)}." for _ in range(count)]
    return " ".join(parts)


def prose(number: int) -> str:
    """Returns a page with a heading and paragraphs, different for every number."""
    generator = random.Random(number)
    return f"{sentences(generator, 5)}\n\nHistory of mill {number}\n\n{sentences(generator, 9)}\n\n{sentences(generator, 4)}"


def document_table(numbers: range) -> pa.Table:
    rows = [
        {"id": f"{n:032x}", "url": f"https://mill.test/{n}", "source": "a.jsonl", "text": prose(n), "title": f"Mill number {n}"}
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, DOCUMENTS)


def finish_stage(run: Storage, stage: str, files: dict[str, Any]) -> None:
    """Publishes files as the one finished task of a stage."""
    stage_runs.finish(run, stage, {"part-00000": files})


def small_tokenizer(texts: list[str], size: int = 600) -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str()).encode()


@pytest.fixture(scope="session")
def tokenizer_json() -> bytes:
    return small_tokenizer([prose(n) for n in range(100)])


@pytest.fixture(scope="session")
def encoder(tokenizer_json: bytes) -> Any:
    from corpusmill.train.template import ChatEncoder

    return ChatEncoder(tokenizer_json)


@pytest.fixture
def pretrained_run(tmp_path: Path, make_pretrained_run: Callable[[Path], Storage]) -> Storage:
    """Makes a run with documents (stage `ingest`) and a randomly initialised model (stage `pretrain`)."""
    return make_pretrained_run(tmp_path)


@pytest.fixture(scope="session")
def make_pretrained_run(tokenizer_json: bytes) -> Callable[[Path], Storage]:
    return lambda folder: _pretrained_run(folder, tokenizer_json)


def _pretrained_run(folder: Path, tokenizer_json: bytes) -> Storage:
    from corpusmill.train.checkpoint import save_model
    from corpusmill.train.model import Llama, initialise
    from corpusmill.train.options import Architecture

    run = Storage(str(folder / "run"))
    finish_stage(
        run, "ingest", {"data/part-00000.parquet": document_table(range(40)), "data/part-00001.parquet": document_table(range(40, 80))}
    )
    model = Llama(Architecture(vocab_size=600, layers=2, width=32, heads=4, kv_heads=2, head_dim=8, ffn=64, context=160))
    initialise(model, 0)
    save_model(model, folder / "model", {"tokenizer.json": tokenizer_json})
    finish_stage(run, "pretrain", {f"model/{path.name}": path for path in sorted((folder / "model").iterdir())})
    return run


@pytest.fixture(scope="session")
def execute() -> Callable[..., StageRun]:
    """Runs stages of a run in this process: `execute(run, Stage(config), ...)`; returns the last one's StageRun."""
    return lambda run, *stages, earlier=("ingest", "pretrain"): stage_runs.perform(run, *stages, earlier=earlier)


@pytest.fixture
def killed_and_resumed(
    execute: Callable[..., StageRun], tree: Callable[[Path], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Checks that a stage which is stopped when it has saved the state of step 2, and done again, leaves the undisturbed one's files."""
    from corpusmill.train.checkpoint import States

    save = States.save

    def save_and_die(self: States, step: int, *rest: Any) -> None:
        save(self, step, *rest)
        if step == 2:
            raise KeyboardInterrupt

    def check(run: Storage, stage: Any) -> None:
        execute(run, stage)
        undisturbed = tree(Path(run.root))
        run.remove_folder(stage.name)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(States, "save", save_and_die)
            execute(run, stage)
        execute(run, stage)
        assert tree(Path(run.root)) == undisturbed

    return check


@pytest.fixture(scope="session")
def finish() -> Callable[[Storage, str, dict[str, Any]], None]:
    return finish_stage


@pytest.fixture(scope="session")
def documents_of() -> Callable[[range], pa.Table]:
    return document_table


@pytest.fixture
def token_run(tmp_path: Path, tokenizer_json: bytes) -> Storage:
    """Makes a run with finished tokens."""
    from launch_runs import run_with_tokens

    return run_with_tokens(tmp_path / "run", tokenizer_json, finish_stage, document_table)


@pytest.fixture(scope="session")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory, tokenizer_json: bytes) -> dict[str, bytes]:
    """Returns the files of a pre-training on two processes of this machine, by path."""
    from launch_runs import left, run_with_tokens, train

    run = run_with_tokens(tmp_path_factory.mktemp("two") / "run", tokenizer_json, finish_stage, document_table)
    train(run)
    return left(run)
