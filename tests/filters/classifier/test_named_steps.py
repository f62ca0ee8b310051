"""The steps `quality`, `toxicity` and `spam`: what needs a model says so, and none fires on clean pages by itself."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_classifiers import sentence

from corpusmill.filters.classifier.builtin import FOLDER, builtin, builtin_key, builtin_spec
from corpusmill.filters.classifier.card import FILE
from corpusmill.filters.classifier.step import BUILTIN
from corpusmill.filters.step import STEPS, build_steps, resolve_step
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.pipeline.shards import read_table

DEMO = Path(__file__).parents[3] / "recipes/demo.yaml"


@pytest.fixture
def builtins(tmp_path: Path, monkeypatch, make_folder) -> Path:
    """A cache in which the built-in classifier lies, as a small one."""
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    for name in BUILTIN:
        folder = make_folder(tmp_path / FOLDER / f"{name}-{builtin_key(builtin_spec(name))}", name, {name: ["good"]}, threshold=0.7)
        described = json.loads((folder / FILE).read_text())
        (folder / FILE).write_text(json.dumps({**described, "ranks": builtin_spec(name).ranks}))
    return tmp_path / FOLDER


def rules_of(name: str, options: dict) -> list[tuple]:
    (step,) = build_steps([resolve_step({name: options})])
    return [(r.rule.name, r.rule.comparison, r.rule.threshold) for r in step.rules]


@pytest.mark.parametrize("options", ["toxicity", {"toxicity": {}}, {"toxicity": {"threshold": 0.9}}, "spam", {"spam": {"keep": 0.9}}])
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
    assert rules_of("toxicity", {"model": str(toxicity)}) == [("toxicity", ">", 1.0)]  # fails nothing, and says which end is bad
    assert rules_of("toxicity", {"model": str(toxicity), "threshold": 0.8}) == [("toxicity", ">=", 0.8)]
    (step,) = build_steps([resolve_step({"spam": {"model": str(toxicity)}})])
    assert "spam_toxicity" in step.columns and step.name == "spam"


def test_quality_ranks_and_has_no_threshold_of_its_own(builtins, measure_step, mixed_texts) -> None:
    assert rules_of("quality", {}) == [("quality", "<", 0.0)]
    assert rules_of("quality", {"threshold": 0.8}) == [("quality", "<", 0.8)]
    assert rules_of("quality", {"measure_only": True}) == []
    with pytest.raises(ValueError, match="quality has no threshold of its own; give a number, or the share to `keep`"):
        rules_of("quality", {"threshold": "own"})
    with pytest.raises(ValueError, match="quality has no threshold of its own"):
        rules_of("classifier", {"model": str(builtin("quality")), "keep_where": "high", "threshold": "own"})
    columns, _ = measure_step("quality", {}, mixed_texts)
    wanted, _ = measure_step("classifier", {"model": str(builtin("quality"))}, mixed_texts)
    assert columns == wanted and max(score for score in columns["quality"] if score is not None) > 0.9


def test_nothing_is_trained_to_know_columns_and_rules(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path))
    assert rules_of("quality", {"keep": 0.5})[0][:2] == ("quality", "<")
    assert not list(tmp_path.iterdir())


def test_used_twice(builtins, toxicity, run_filter, finished_ingest, make_documents, mixed_texts, tmp_path) -> None:
    run = finished_ingest(tmp_path / "run", [make_documents(mixed_texts)])
    run_filter(run, {"steps": ["quality", {"toxicity": {"model": str(toxicity), "window": 5}}, {"quality": {"keep": 0.5}}]})
    report = read_table(run, "filter/report/part-00000.parquet")
    assert report["quality"].equals(report["quality_2"]) and {"toxicity", "toxicity_share"} <= set(report.column_names)
    data = read_table(run, "filter/data/part-00000.parquet")
    assert data.column_names[-2:] == ["quality", "toxicity"]
    names = {path.name for path in (tmp_path / "run/filter/classifiers").iterdir()}
    assert names == {"quality.json", "quality_2.json", "toxicity.json"}


def test_quality_has_its_model() -> None:
    with pytest.raises(ConfigError, match="model: this step has its own; for another, `- classifier:"):
        validate_recipe({"filter": {"steps": [{"quality": {"model": "x"}}]}}, "recipe.yaml")
    with pytest.raises(ConfigError, match="unknown key, expected one of .*threshold"):
        validate_recipe({"filter": {"steps": [{"quality": {"thresh": 1}}]}}, "recipe.yaml")


def clean_pages(shared: Path) -> list[str]:
    """Ordinary pages of Common Crawl where they are there, and pages of a manual that this test makes."""
    made = [
        f"Chapter {n}. Before you install the {part}, check that the disk has {n} GB free. " + "Then run the installer and answer its "
        f"questions; the {part} is set up in a few minutes. If it hangs, kill the process and start it again. " * (1 + n % 4)
        for n in range(10)
        for part in ("boot loader", "printer", "mail server", "desktop", "kernel")
    ]
    files = [path for name in ("text/c4_demo.jsonl", "quality/dclm_human.jsonl") if (path := shared / name).is_file()]
    return made + [json.loads(line)["text"] for path in files for line in path.open(encoding="utf-8")]


def test_scores_without_a_model_given_fire_on_no_clean_pages(builtins, shared_data, run_filter, finished_ingest, make_documents, tmp_path):
    """Every step that scores by itself, and those of the demo."""
    scoring = [name for name in STEPS if STEPS[name].startswith("corpusmill.filters.classifier.") and _needs_nothing(name)]
    demo = [item for item in yaml.safe_load(DEMO.read_text("utf-8"))["filter"]["steps"] if set(item) & {"quality", "toxicity", "spam"}]
    pages = clean_pages(shared_data)
    assert scoring and demo and len(pages) >= 50
    run = finished_ingest(tmp_path / "run", [make_documents(pages)])
    done = run_filter(run, {"steps": [*scoring, *demo]})
    assert not done.manifest.tasks.get("answers") and read_table(run, "filter/data/part-00000.parquet").num_rows == len(pages)
    for name in scoring:  # nor can a recipe ask for a threshold that was chosen on other text
        with pytest.raises(ValueError, match="no threshold of its own"):
            rules_of(name, {"threshold": "own"})


def _needs_nothing(name: str) -> bool:
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
    from corpusmill.report.facts.summary import read_summary

    def of(name: str, texts: list[str], **options):
        step = {"toxicity": {"model": str(toxicity), **options}}
        return answers(run_filter, finished_ingest, make_documents, tmp_path / name, texts, step)

    counts, warnings = of("own", toxic_and_clean(12, 88))
    assert (counts["toxicity"]["scored"], counts["toxicity"]["fires"]) == (100, 12)
    said = "toxicity fires on 12 of 100 documents (12.0%; toxicity >= 0.6): that is more than a tenth of the corpus"
    assert len(warnings) == 2 and warnings[0].startswith(said) and warnings[1].startswith("toxicity_hate fires on ")  # a label each
    with corpusmill.open_run(str(tmp_path / "own")) as run:
        assert any(warning.startswith(f"filter: {said}") for warning in run.warnings)
        assert any(warning.startswith(f"filter: {said}") for warning in read_summary(str(tmp_path / "own")).warnings)
    assert of("few", toxic_and_clean(5, 95))[1] == []
    assert "toxicity_share > 0.2" in of("share", toxic_and_clean(30, 70), max_share={"toxicity": 0.2})[1][0]
    assert of("number", toxic_and_clean(30, 70), threshold={"toxicity": 1.0})[0]["toxicity"]["fires"] == 0  # by the recipe's rule
    assert "toxicity" not in (of("kept", toxic_and_clean(30, 70), keep=0.5)[0] or {})  # what a kept share drops was asked for
