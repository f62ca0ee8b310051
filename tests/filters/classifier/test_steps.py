"""Tests steps that score: columns, rules, options."""

import json
import re
import shutil
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from tiny_classifiers import sentence

from corpusmill.filters.classifier import train
from corpusmill.filters.classifier.card import FILE, read_classifier
from corpusmill.filters.classifier.options import BUILTIN, FOLDER, builtin, builtin_key
from corpusmill.filters.classifier.spec import read_spec
from corpusmill.filters.step import STEPS, build_steps, resolve_step
from corpusmill.pipeline.cache import made
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.recipe import validate_recipe

# ---- Scores of the step, compared with those that authors of public models compute with fastText, and recipes that use them.


def predict(model, text: str, k: int = 1):
    """Returns fastText's `predict` (the binding's own fails with numpy 2): labels and probabilities, the likeliest first."""
    labels, chances = model.predict(text, k=k)
    return labels, np.asarray(chances)


def dclm_reference(model, content: str) -> float:
    """Computes DCLM's classify_fasttext_hq_prob, with its names."""
    text = " ".join(content.strip().splitlines())
    (label, *_), (chance, *_) = predict(model, text)
    return 1 - chance if label == "__label__cc" else chance


def dolma_reference(model, text: str) -> float:
    """Computes Dolma's FastTextJigsawHatespeechDocumentTagger: the label without "non" in its name, of two."""
    labels, chances = predict(model, text.replace("\n", " ").strip(), k=-1)
    return chances[1 if "non" in labels[0] else 0]


def expected_reference(model, text: str, values: dict[str, float]) -> float:
    """Computes the score on the card of llm-data-textbook-quality-fasttext-classifer-v2."""
    return sum(values[label] * chance for label, chance in zip(*predict(model, re.sub("\n+", " ", text), k=-1)))


def best_reference(model, text: str) -> int:
    """Computes the score on the card of fineweb-edu-fasttext-classifier."""
    return int(predict(model, re.sub("\n+", " ", text))[0][0].removeprefix("__label__"))


def known(texts: list[str]) -> list[str]:
    return [text for text in texts if text.strip() and "\u4e00" not in text]


def test_dclm(measure_step, dclm_model, mixed_texts):
    texts = known(mixed_texts)
    columns, _ = measure_step("classifier", {"preset": "dclm", "model": str(dclm_model)}, texts)
    model = fasttext.load_model(str(dclm_model))
    assert columns["dclm"] == pytest.approx([dclm_reference(model, text) for text in texts], abs=3e-5)  # fastText adds 1e-5 to each
    assert list(columns) == ["dclm"] and np.ptp(columns["dclm"]) > 0.9


def test_dolma_jigsaw(measure_step, jigsaw_model, mixed_texts):
    texts = known(mixed_texts)
    columns, _ = measure_step("classifier", {"preset": "dolma-jigsaw-hatespeech", "model": str(jigsaw_model)}, texts)
    model = fasttext.load_model(str(jigsaw_model))
    assert columns["jigsaw_hatespeech"] == pytest.approx([min(dolma_reference(model, text), 1) for text in texts], abs=1e-6)
    assert np.ptp(columns["jigsaw_hatespeech"]) > 0.9


def test_a_scale_has_an_expected_value_and_a_likeliest_label(measure_step, scale_model, mixed_texts):
    texts = known(mixed_texts)
    columns, _ = measure_step("classifier", {"preset": "fineweb-edu", "model": str(scale_model)}, texts)
    model, values = fasttext.load_model(str(scale_model)), {f"__label__{mark}": float(mark) for mark in range(6)}
    assert columns["fineweb_edu"] == pytest.approx([expected_reference(model, text, values) for text in texts], abs=1e-5)
    assert columns["fineweb_edu_best"] == [best_reference(model, text) for text in texts]
    assert set(columns["fineweb_edu_best"]) >= {0, 2, 5}


def test_two_labels_of_a_model(measure_step, dclm_model, mixed_texts):
    options = {"model": str(dclm_model), "name": "x"}
    yes, _ = measure_step("classifier", options | {"positive": "__label__hq"}, mixed_texts)
    both, _ = measure_step("classifier", options | {"positive": {"hq": "__label__hq", "cc": "__label__cc"}}, mixed_texts)
    assert both["x_hq"] == yes["x"] and list(both) == ["x_hq", "x_cc"]
    known = [hq + cc for hq, cc in zip(both["x_hq"], both["x_cc"]) if hq is not None]
    assert known == pytest.approx([1.0] * len(known), abs=3e-5)


def step_of(options: dict):
    (step,) = build_steps([resolve_step({"classifier": options})])
    return step


def rules_of(options: dict) -> list[tuple]:
    return [(r.rule.name, r.rule.comparison, r.rule.threshold) for r in step_of(options).rules]


def test_what_decides(dclm_model, jigsaw_model, scale_model, toxicity, quality):
    assert rules_of({"preset": "dclm", "model": str(dclm_model)}) == [("dclm", "<", 0.018112)]
    assert rules_of({"preset": "dclm", "model": str(dclm_model), "threshold": None}) == []
    assert rules_of({"preset": "dclm", "model": str(dclm_model), "name": "x", "keep": {"x": 0.1}})[0][:2] == ("x", "<")
    assert rules_of({"preset": "dclm", "model": str(dclm_model), "threshold": 0.5}) == [("dclm", "<", 0.5)]
    assert rules_of({"preset": "dolma-jigsaw-hatespeech", "model": str(jigsaw_model)}) == [("jigsaw_hatespeech", ">=", 0.4)]
    assert rules_of({"preset": "fineweb-edu", "model": str(scale_model)}) == []
    assert rules_of({"preset": "fineweb-edu", "model": str(scale_model), "threshold": 3}) == [("fineweb_edu", "<", 3.0)]
    assert rules_of({"preset": "fineweb-edu", "model": str(scale_model), "threshold": {"best": 3}}) == [("fineweb_edu_best", "<", 3.0)]
    tox = {"model": str(toxicity), "keep_where": "low"}
    assert rules_of(tox) == []
    assert rules_of(tox | {"threshold": 0.5}) == [("toxicity", ">=", 0.5)]
    assert rules_of(tox | {"threshold": "own"}) == [("toxicity", ">=", 0.6)]
    assert rules_of(tox | {"threshold": {"hate": "own"}}) == [("toxicity_hate", ">=", 0.6)]
    assert rules_of({"model": str(quality), "keep_where": "high", "threshold": 0.2}) == [("quality", "<", 0.2)]
    (rule,) = step_of({"model": str(quality), "keep_where": "high", "keep": 0.1}).rules
    assert rule.rule.unknown and rule.rule.kept.share == 0.1 and rule.rule.kept.of == "passing" and rule.rule.comparison == "<"


def test_the_hash_of_the_models_is_that_of_what_scores(quality, tmp_path):
    folder = Path(shutil.copytree(quality, tmp_path / "quality"))
    described = read_classifier(quality)
    digests = [described.digest(), described.heads[0].sha256]
    raw = json.loads((folder / FILE).read_text())
    for change, same in (({}, True), ({"card": {"note": "other"}}, True), ({"window": 7}, False)):
        (folder / FILE).write_text(json.dumps(raw | change))
        assert (step_of({"model": str(folder)}).step.model_digests() == digests) == same


BAD_OPTIONS = [
    ({}, "model: say which"),
    ({"model": "m.bin"}, r"positive: say which label of .*m\.bin means yes"),
    ({"model": "m.bin", "preset": "fineweb-edu", "positive": "__label__a"}, "values: positive is given, too"),
    ({"model": "m.bin", "preset": "fineweb-edu", "window": 5}, "values: the expected value is that of the whole text"),
    ({"model": "m.bin", "positive": "a", "sha256": "12"}, "sha256: string should match pattern"),
    ({"model": "m.bin", "positive": "a", "keep": 0.1, "threshold": 0.5}, "keep: a threshold is given, too"),
    ({"model": "m.bin", "positive": "a", "keep": 1.5}, "keep: a share is above 0 and at most 1, not 1.5"),
    ({"model": "m.bin", "positive": "a", "threshold": 0.5}, "keep_where: say which scores are good"),
    ({"model": "m.bin", "positive": "a", "threshold": {"x": 0.5}, "keep_where": "low"}, r"threshold: m has no label 'x' \(it has m\)"),
    ({"model": "m.bin", "positive": "a", "threshold": "own", "keep_where": "low"}, "threshold: m has no threshold of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        validate_recipe({"filter": {"steps": [{"classifier": options}]}}, "recipe.yaml")


def test_a_model_that_can_not_be_used(run_filter, finished_ingest, make_documents, tmp_path, dclm_model, make_folder):
    run = finished_ingest(tmp_path / "run", [make_documents(["a text"])])
    text, label = tmp_path / "text.bin", {"positive": "__label__hq"}
    text.write_text("this is no model")
    for options, message in (
        ({"model": str(tmp_path / "none.bin"), **label}, r"none\.bin: .*No such file"),
        ({"model": str(text), **label}, r"text\.bin: .*another format"),
        ({"model": str(dclm_model), "positive": "__label__x"}, r"oh_eli5\.bin: .*no label '__label__x'.*__label__hq"),
        ({"model": str(dclm_model), "sha256": "0" * 64, **label}, r"oh_eli5\.bin: it is another file .*expected 0000"),
    ):
        with pytest.raises(InputError, match=message):
            run_filter(run, {"steps": [{"classifier": options}]})
    folder = make_folder(tmp_path / "folder", "q", {"q": ["good"]})
    (folder / "q.bin").write_bytes((folder / "q.bin").read_bytes() + b"x")
    with pytest.raises(InputError, match=r"q\.bin: it is another file than classifier\.json means"):
        run_filter(run, {"steps": [{"classifier": str(folder)}]})
    (folder / "q.bin").unlink()
    with pytest.raises(InputError, match=r"q\.bin: can't be read"):
        run_filter(run, {"steps": [{"classifier": str(folder)}]})


# ---- The steps `quality`, `toxicity` and `spam`: an error where a model is needed, and no positive on clean pages by default.


@pytest.fixture
def builtins(tmp_path: Path, monkeypatch, make_folder) -> Path:
    """Makes a cache with a small built-in classifier."""
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    for name in BUILTIN:
        folder = make_folder(tmp_path / FOLDER / f"{name}-{builtin_key(read_spec([name]))}", name, {name: ["good"]}, threshold=0.7)
        described = json.loads((folder / FILE).read_text())
        (folder / FILE).write_text(json.dumps({**described, "ranks": read_spec([name]).ranks}))
        made(folder / FILE, folder, lambda: None)  # writes its hash
    return tmp_path / FOLDER


def rules_of_named(name: str, options: dict) -> list[tuple]:
    (step,) = build_steps([resolve_step({name: options})])
    return [(r.rule.name, r.rule.comparison, r.rule.threshold) for r in step.rules]


@pytest.mark.parametrize("options", ["toxicity", {"spam": {"keep": 0.9}}])
def test_without_a_model_one_sentence_says_how_to_make_one(options) -> None:
    with pytest.raises(ConfigError) as refused:
        validate_recipe({"filter": {"steps": [options]}}, "recipe.yaml")
    name = options if isinstance(options, str) else next(iter(options))
    said = str(refused.value)
    assert "none is built in" in said and "\n" not in said
    assert f"--output models/{name}`" in said and f"`- {name}: models/{name}`" in said and "corpusmill classifier train" in said
    with pytest.raises(InputError, match=f"^{name}: none is built in, .*`corpusmill classifier train "):
        builtin(name)


def test_a_model_makes_the_step(toxicity, measure_step, mixed_texts) -> None:
    columns, _ = measure_step("toxicity", str(toxicity), mixed_texts)
    wanted, _ = measure_step("classifier", {"model": str(toxicity)}, mixed_texts)
    assert columns == wanted and "toxicity" in columns
    assert rules_of_named("toxicity", {"model": str(toxicity)}) == [("toxicity", ">", 1.0)]  # fails nothing, and says which end is bad
    assert rules_of_named("toxicity", {"model": str(toxicity), "threshold": 0.8}) == [("toxicity", ">=", 0.8)]
    for name in ("spam", "quality"):
        (step,) = build_steps([resolve_step({name: str(toxicity)})])
        assert f"{name}_toxicity" in step.columns and step.name == name


def test_quality_ranks_and_has_no_threshold_of_its_own(builtins, measure_step, mixed_texts) -> None:
    assert rules_of_named("quality", {}) == [("quality", "<", 0.0)]
    assert rules_of_named("quality", {"threshold": 0.8}) == [("quality", "<", 0.8)]
    with pytest.raises(ValueError, match="quality has no threshold of its own; give a number, or the share to `keep`"):
        rules_of_named("quality", {"threshold": "own"})
    with pytest.raises(ValueError, match="quality has no threshold of its own"):
        rules_of_named("classifier", {"model": str(builtin("quality")), "keep_where": "high", "threshold": "own"})
    columns, _ = measure_step("quality", {}, mixed_texts)
    wanted, _ = measure_step("classifier", {"model": str(builtin("quality"))}, mixed_texts)
    assert columns == wanted and max(score for score in columns["quality"] if score is not None) > 0.9


def test_nothing_is_trained_to_know_columns_and_rules(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    assert rules_of_named("quality", {"keep": 0.5})[0][:2] == ("quality", "<")
    assert not list(tmp_path.iterdir())


def test_a_damaged_classifier_in_the_cache_is_trained_again(builtins, monkeypatch) -> None:
    monkeypatch.setattr(train, "train_classifier", lambda spec, folder, _: trained.append(folder) or shutil.copytree(whole, folder))
    trained: list[Path] = []
    whole = shutil.copytree(builtin("quality"), builtins / "whole")
    damaged = builtin("quality") / FILE
    damaged.write_bytes(damaged.read_bytes().replace(b"0.7", b"0.3"))  # one bit
    assert builtin("quality") == damaged.parent and trained == [damaged.parent]
    assert damaged.read_bytes() == (whole / FILE).read_bytes() and builtin("quality") and len(trained) == 1


def test_scores_without_a_model_given_fail_no_page(builtins) -> None:
    """Tests every step that needs no given model: whatever they score, no rule fails a page."""
    ready = [name for name in STEPS if STEPS[name].startswith("corpusmill.filters.classifier.") and needs_nothing(name)]
    built = build_steps([*map(resolve_step, ready)])
    assert ready and all(step.rules and not step.step.bad_from() for step in built)
    for rule in (rule.rule for step in built for rule in step.rules):
        assert not rule.failing(pa.array([0, 0.01, 0.5, 0.99, 1])).any(), rule
    for name in ready:  # nor can a recipe ask for a threshold that was chosen on other text
        with pytest.raises(ValueError, match="no threshold of its own"):
            rules_of_named(name, {"threshold": "own"})


def needs_nothing(name: str) -> bool:
    try:
        return bool(build_steps([resolve_step(name)]))
    except ValueError:
        return False


def toxic_and_clean(toxic: int, clean: int) -> list[str]:
    return [sentence(["rude"], 30, n) for n in range(toxic)] + [sentence(["good", "other"], 30, n) for n in range(clean)]


def answers(run_filter, finished_ingest, make_documents, path: Path, texts: list[str], options: dict):
    done = run_filter(finished_ingest(path, [make_documents(texts[::2]), make_documents(texts[1::2])]), {"steps": [options]})
    task = done.manifest.tasks.get("answers")
    return (json.loads((path / "filter/answers.json").read_text()), task.warnings) if task else (None, [])


def test_a_score_that_fires_on_more_than_a_tenth_warns(toxicity, run_filter, finished_ingest, make_documents, tmp_path) -> None:
    import corpusmill
    from corpusmill.report.queries.summary import read_summary

    def of(name: str, texts: list[str], **options):
        step = {"toxicity": {"model": str(toxicity), **options}}
        return answers(run_filter, finished_ingest, make_documents, tmp_path / name, texts, step)

    counts, warnings = of("own", toxic_and_clean(12, 88))
    assert (counts["toxicity"]["scored"], counts["toxicity"]["fires"]) == (100, 12)
    said = "toxicity fires on 12 of 100 documents (12.0%; toxicity >= 0.6): that is more than a tenth of the corpus"
    assert len(warnings) == 2 and warnings[0].startswith(said) and warnings[1].startswith("toxicity_hate fires on ")  # one for each label
    with corpusmill.open_run(str(tmp_path / "own")) as run:
        assert any(warning.startswith(f"filter: {said}") for warning in run.warnings)
        assert any(warning.startswith(f"filter: {said}") for warning in read_summary(str(tmp_path / "own")).warnings)
    assert of("few", toxic_and_clean(5, 95))[1] == []
    assert of("number", toxic_and_clean(30, 70), threshold={"toxicity": 1.0})[0]["toxicity"]["fires"] == 0  # by the recipe's rule
    assert "toxicity" not in (of("kept", toxic_and_clean(30, 70), keep=0.5)[0] or {})  # the recipe asked for the drops of a kept share
