"""Tests the scores of a run's models on what is held out."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch_runs import make_tokens
from token_sets import write_token_set

from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.benchmarks import ModelUnderTest
from corpusmill.train.checkpoint import save_model
from corpusmill.train.evaluate import EvaluateConfig, EvaluateStage
from corpusmill.train.model import Llama, initialise
from corpusmill.train.options import Architecture
from corpusmill.train.pretrain import PretrainConfig, PretrainStage
from corpusmill.train.tuning import AlignConfig, AlignStage, SftConfig, SftStage

QUICK_LOOP = {"precision": "fp32", "threads": 1, "steps": 4}
EARLIER = ("ingest", "tokenizer", "tokens", "pretrain")


@pytest.fixture(scope="module")
def make_run(make_pretrained_run, finish, tokenizer_json):
    def make(folder) -> Storage:
        run = make_pretrained_run(folder)
        finish(run, "tokenizer", {"tokenizer.json": tokenizer_json})
        make_tokens(run)
        return run

    return make


@pytest.fixture
def run(make_run, tmp_path) -> Storage:
    return make_run(tmp_path)


def held_out(run: Storage) -> set[str]:
    shards = TokenShards(run.path("tokens/validation"))
    return {document.id for document in shards.documents_of(0, shards.total)}


@pytest.fixture(scope="module")
def evaluated(make_run, tmp_path_factory, execute):
    run = make_run(tmp_path_factory.mktemp("evaluated"))
    stages = [
        SftStage(SftConfig.model_validate({"batch": 4, "per_document": 1, "loop": QUICK_LOOP})),
        AlignStage(AlignConfig.model_validate({"per_document": 1, "loop": QUICK_LOOP})),
        EvaluateStage(EvaluateConfig(samples=2, max_tokens=8)),
    ]
    return run, execute(run, *stages, earlier=EARLIER)


def scores_of(run: Storage) -> dict:
    return json.loads(run.child("evaluate").read_bytes("scores.json"))


def test_every_model_is_scored_on_all_that_is_held_out(evaluated):
    run, done = evaluated
    scores, samples = scores_of(run), json.loads(run.child("evaluate").read_bytes("samples.json"))
    assert list(scores) == list(samples) == ["align", "pretrain", "sft"]
    for name, score in scores.items():
        bits, preferences = score["bits_per_byte"], score["preferences"]
        assert bits["low"] <= bits["value"] <= bits["high"] and bits["documents"] == len(held_out(run))
        assert preferences["low"] <= preferences["accuracy"] <= preferences["high"]
        assert len(samples[name]) == (2 if name == "pretrain" else 4)
    bits, tokens = scores["pretrain"]["bits_per_byte"], len(TokenShards(run.path("tokens/validation"))) - len(held_out(run))
    assert bits["value"] == pytest.approx(math.log2(600) * tokens / bits["bytes"], rel=1e-5)  # an untrained model knows only its vocabulary
    prompts = json.loads(run.child("evaluate").read_bytes("prompts.json"))
    assert len(prompts) == 2
    summary = done.stage.summary(done)
    assert "bits per byte" in summary["sft"]
    first = next(sample for sample in samples["align"] if sample["kind"] == "answer")
    assert (summary["asked"], summary["answered"]) == (first["prompt"], first["text"])
    examples = json.loads(run.child("sft").read_bytes("metrics.json"))
    assert examples["held_out_examples"] >= len(held_out(run)) > 1


def test_a_model_with_special_tokens_of_its_own_is_measured_on_the_tokens_of_its_parent(run, execute):
    sft = SftStage(SftConfig.model_validate({"batch": 4, "per_document": 1, "template": "llama3", "loop": QUICK_LOOP}))
    execute(run, sft, EvaluateStage(EvaluateConfig(samples=0)), earlier=EARLIER)
    assert run.child("sft/model").read_bytes("tokenizer.json") != run.child("pretrain/model").read_bytes("tokenizer.json")
    scores = scores_of(run)
    assert scores["sft"]["bits_per_byte"]["bytes"] == scores["pretrain"]["bits_per_byte"]["bytes"]
    assert scores["sft"]["bits_per_byte"]["value"] == pytest.approx(scores["pretrain"]["bits_per_byte"]["value"], rel=0.1)  # four steps


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-params"])
def test_the_stage_and_the_training_report_one_number(token_run, execute, precision):
    """Both compute in the training's precision, in which other numbers come out than in fp32."""
    loop = {**QUICK_LOOP, "precision": precision, "optimizer": {"lr": 0.02}}
    model = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 32}
    config = PretrainConfig.model_validate({"model": model, "batch": 4, "samples": 0, "loop": loop, "evaluate_every": 0})
    execute(token_run, PretrainStage(config), EvaluateStage(EvaluateConfig(samples=0)), earlier=EARLIER[:3])
    reported = json.loads(token_run.read_bytes("pretrain/metrics.json"))["validation"]["bits_per_byte"]
    assert scores_of(token_run)["pretrain"]["bits_per_byte"]["value"] == float(f"{reported:.6g}")  # as json_file rounds
    tested = ModelUnderTest(token_run.path("pretrain/model"))
    same, wide = (tested.bits_per_byte(token_run, name, window=32) for name in (precision, "fp32"))
    assert same["value"] == reported and (wide["value"] == reported) == (precision == "fp32")


def test_the_stage_and_the_training_report_one_number_for_a_given_model(token_run, execute, tmp_path):
    """Rows are shorter than the model's context, which the recipe does not name."""
    model = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "context": 32}
    config = {"batch": 2, "samples": 0, "loop": QUICK_LOOP, "evaluate_every": 0}
    execute(token_run, PretrainStage(PretrainConfig.model_validate({**config, "model": model})), earlier=EARLIER[:3])
    given = shutil.copytree(token_run.path("pretrain/model"), tmp_path / "given")
    settings = json.loads((given / "config.json").read_bytes())
    (given / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 4096}))
    further = PretrainStage(PretrainConfig.model_validate({**config, "model": str(given), "document_mask": False}))
    execute(token_run, further, EvaluateStage(EvaluateConfig(samples=0)), earlier=EARLIER[:3])
    reported = json.loads(token_run.read_bytes("pretrain/metrics.json"))["validation"]["bits_per_byte"]
    assert scores_of(token_run)["pretrain"]["bits_per_byte"]["value"] == float(f"{reported:.6g}")  # as json_file rounds
    tested = ModelUnderTest(token_run.path("pretrain/model"))
    same, short = (tested.bits_per_byte(token_run, "fp32", window, document_mask=False)["value"] for window in (2048, 32))
    assert same == reported != short


@pytest.mark.long
def test_a_published_model_with_a_long_context_is_measured_in_windows_that_fit(run, tmp_path):
    """Without the bounds the logits of all these tokens would take 2.4 GB, and their softmax as much."""
    arch = Architecture(vocab_size=50_000, layers=1, width=16, heads=2, kv_heads=1, head_dim=8, ffn=32, context=32_768)
    model = Llama(arch)
    initialise(model, 0)
    save_model(model, Path(run.path("pretrain/model")), {"tokenizer.json": run.read_bytes("pretrain/model/tokenizer.json")})
    documents = [[*(4 + (n * place) % 500 for place in range(1, 200)), EOT_ID] for n in range(1, 61)]
    sha256 = hashlib.sha256(run.read_bytes("pretrain/model/tokenizer.json")).hexdigest()
    run.remove_folder("tokens/validation")
    write_token_set(run.path("tokens/validation"), [documents], vocabulary_size=50_000, tokenizer=sha256)
    code = f"""
from corpusmill.pipeline.engine import peak_memory_mb
from corpusmill.pipeline.storage import Storage
from corpusmill.train.benchmarks import ModelUnderTest
tested = ModelUnderTest({run.path("pretrain/model")!r})
assert tested.window(None) == 2048
before = peak_memory_mb()
assert tested.bits_per_byte(Storage({run.root!r}))["value"] > 0
print(peak_memory_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # a chunk of logits and its softmax are a few hundred MB at most; the rest is room for libraries and allocators
    assert int(done.stdout) < 1_500


def test_without_validation_tokens_there_are_no_bits(pretrained_run, execute):
    execute(pretrained_run, EvaluateStage(EvaluateConfig(samples=1, max_tokens=4)))
    assert scores_of(pretrained_run)["pretrain"] == {"bits_per_byte": None, "preferences": None, "answer_tokens": None}


def test_prompts_are_from_validation_documents_alone(run, execute):
    execute(run, EvaluateStage(EvaluateConfig(samples=40, max_tokens=1)), earlier=EARLIER)
    prompts = json.loads(run.child("evaluate").read_bytes("prompts.json"))
    assert {prompt["document"] for prompt in prompts} == held_out(run)
