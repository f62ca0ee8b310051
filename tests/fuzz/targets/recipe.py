"""Fuzzes a recipe and `--set` overrides (lines after a NUL): validated sections that survive a round trip, or one sentence."""

import contextlib
from pathlib import Path

from fuzzing import scratch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.recipe import read_recipe, validate_recipe

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
#: Steps that load code or models: these do what a recipe says, so strangers' recipes must not be run (SECURITY.md).
LOADING = (b"python", b"transformer", b"datatrove", b"classifier", b"://")


def seeds() -> list[bytes]:
    files = [path.read_bytes() for path in sorted(RECIPES.glob("*.yaml"))]
    files = [content for content in files if not any(word in content for word in LOADING)]
    return [
        *files,
        b"ingest: {}\nfilter: {steps: [{gopher_quality: {}}]}\n\0filter.steps.0.gopher_quality.min_words=3\ndedup.threshold=0.8",
        b"dedup: {near: {enabled: false}}\ntokens: &a {validation_share: 0.1}\n\0tokens.validation_share=.5\ntokenizer={}",
        b"pretrain: {model: {preset: 0.8m}, loop: {steps: 5}}\nevaluate: {}\n\0pretrain.model.layers=[1]\npretrain.batch=1e3",
    ]


def fuzz(data: bytes) -> None:
    if any(word in data.lower() for word in LOADING):
        return
    text, _, sets = data.partition(b"\0")
    path = scratch() / "recipe.yaml"
    path.write_bytes(text)
    overrides = sets.decode("utf-8", "replace").split("\n") if sets else []
    with contextlib.suppress(InputError):
        sections = read_recipe(str(path), overrides)
        raw = {name: section.model_dump(mode="json") for name, section in sections.items()}
        again = validate_recipe(raw, str(path))
        assert {name: section.model_dump(mode="json") for name, section in again.items()} == raw, "the resolved recipe is another one"
