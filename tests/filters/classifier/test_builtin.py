"""The built-in classifier: its spec, and a real training where the packages can be had."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.defaults import BUILTIN
from corpusmill.filters.classifier.defaults import builtin as module
from corpusmill.filters.classifier.defaults.builtin import builtin, builtin_key, builtin_spec
from corpusmill.filters.classifier.defaults.corpora import CORPORA, PREFIX
from corpusmill.filters.classifier.scorer import Scorer, load_heads
from corpusmill.filters.classifier.spec import read_spec
from corpusmill.pipeline import cache as caches
from corpusmill.pipeline.errors import InputError

RECIPES = sorted((Path(__file__).parents[3] / "recipes" / "classifiers").glob("*.yaml"))
#: What each is asked: texts that mean yes, texts that mean no.
ASKED = {
    "quality": (
        "The river rises in the mountains of the north and flows through three provinces before it reaches the sea. Its basin was settled "
        "in the ninth century, and the towns along it were founded by merchants who traded in salt and wool.",
        "click here!!! free free free\nunsubscribe\nhttp://x.test/a\nto be removed from this list reply with REMOVE\nCall now toll free",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILTIN)
def test_specs(name: str) -> None:
    spec = builtin_spec(name)
    assert spec.name == name and spec.labels == (name,)
    assert all(source.licence for source in spec.sources)
    assert spec.ranks and any("weak" in sentence for sentence in spec.limits)
    files = [path for source in spec.sources for path in source.files]
    assert all(path.startswith(PREFIX) and path.removeprefix(PREFIX) in CORPORA for path in files)
    other = spec.model_copy(update={"seed": 2})
    assert builtin_key(spec) == builtin_key(builtin_spec(name)) != builtin_key(other)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    spec = read_spec(path)
    corpora = [name for source in spec.sources for name in source.files if name.startswith(PREFIX)]
    assert spec.name == path.stem and all(name.removeprefix(PREFIX) in CORPORA for name in corpora)


def test_an_unknown_name() -> None:
    with pytest.raises(InputError, match=r"^sexism: there is no built-in classifier of that name \(there is quality\)\.$"):
        builtin("sexism")


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(command: list[str], **_: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    monkeypatch.setattr(caches.subprocess, "run", no_network)
    monkeypatch.setattr(caches.shutil, "which", lambda _: "npm")
    for name in BUILTIN:
        with pytest.raises(InputError, match=r"no network\); (train a classifier on your own files|without it)"):
            builtin(name)
    assert not list(tmp_path.glob("classifiers/*/*"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) for name in BUILTIN])
def test_trained_at_first_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        folder = builtin(name)
    except InputError as error:
        if "can't" not in str(error):
            raise
        pytest.skip(str(error))
    classifier = read_classifier(folder)
    assert [head.label for head in classifier.heads] == [name]
    assert hashlib.sha256((folder / classifier.heads[0].file).read_bytes()).hexdigest() == classifier.heads[0].sha256
    yes, no = Scorer(load_heads(folder, classifier)).score(pa.array(ASKED[name], pa.large_string()))[0].score
    assert yes > 0.5 > no
    monkeypatch.setattr(module, "train_classifier", None)  # it is not trained twice
    assert builtin(name) == folder
