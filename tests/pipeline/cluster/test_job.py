"""What is sent to a cluster with a job. The cluster itself is that of test_nodes.py."""

import dataclasses
import os
import shlex
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from corpusmill.pipeline.cluster import job as ray_job
from corpusmill.pipeline.cluster import nodes as cluster
from corpusmill.pipeline.cluster import upload as ray_upload
from corpusmill.pipeline.errors import CorpusmillError, InputError


def staged(folder: Path, recipe: Path, *overrides: str) -> dict:
    ray_upload.stage_recipe(folder, str(recipe), overrides, said.append)
    return yaml.safe_load((folder / "recipe.yaml").read_text())


said: list[str] = []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which somebody works: recipes that name files beside them, above them, and in this folder."""
    said.clear()
    for name in ("recipes/steps.py", "recipes/lists/en.json", "models/quality/classifier.json", "models/quality/q.ftz", "items/a.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "recipes" / "lists" / "__pycache__").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


RECIPE = """
filter:
  steps:
    - python: steps.py:exclaims
    - classifier: {model: ../models/quality, keep: 0.9}
    - stop_words: {lists: lists/en.json}
    - language: {keep: [en], threshold: 0.3}
evaluate: {tasks: [{task: blimp, path: "items/*.jsonl"}, {task: sciq, path: /data/sciq.jsonl}]}
dedup: {keep: quality, index: {path: index}}
"""


def test_the_package_travels_whole_with_its_links_followed(tmp_path: Path) -> None:
    package = ray_upload.stage_package(tmp_path / "code")
    assert package == tmp_path / "code" / "corpusmill"
    assert not [p for p in package.rglob("*") if p.is_symlink() or p.name == "__pycache__"]
    assert not (package / "tokenize" / "__init__.py").exists()
    rooms = ("filters", "dedup", "train", "pipeline.text", "ingest", "tokenize.tokens_stage")
    code = (
        f"import corpusmill, tokenize, {', '.join(f'corpusmill.{room}' for room in rooms)}; print(corpusmill.__file__, tokenize.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    imported, standard = done.stdout.split()
    assert imported == str(package / "__init__.py")
    assert standard == __import__("tokenize").__file__
    assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) < 10e6


def test_what_a_recipe_names_lies_where_the_jobs_recipe_names_it(project: Path) -> None:
    (project / "recipes" / "mine.yaml").write_text(RECIPE)
    recipe = staged(project / "job", Path("recipes/mine.yaml"), "dedup.threshold=0.8")
    files = sorted(path.relative_to(project / "job").as_posix() for path in (project / "job").rglob("*") if path.is_file())
    assert files == [
        "items/a.jsonl", "lists/en.json", "outside/1/models/quality/classifier.json", "outside/1/models/quality/q.ftz",
        "recipe.yaml", "steps.py",
    ]  # fmt: skip
    python, classifier, stop_words, language = recipe["filter"]["steps"]
    assert python == {"python": "steps.py:exclaims"}
    assert classifier == {"classifier": {"model": "outside/1/models/quality", "keep": 0.9}}
    assert (project / "job" / "outside" / "1" / "models" / "quality" / "q.ftz").read_text() == "models/quality/q.ftz"
    assert stop_words == {"stop_words": {"lists": "lists/en.json"}} and language == {"language": {"keep": ["en"], "threshold": 0.3}}
    assert [task["path"] for task in recipe["evaluate"]["tasks"]] == ["items/*.jsonl", "/data/sciq.jsonl"]
    assert recipe["dedup"] == {"keep": "quality", "threshold": 0.8, "index": {"path": f"{project}/index"}}  # it is written there
    assert said == []


def test_the_same_content_is_the_same_upload(project: Path) -> None:
    (project / "recipes" / "mine.yaml").write_text(RECIPE)
    trees = []
    for name in ("one", "two"):
        staged(project / name, Path("recipes/mine.yaml"))
        trees.append({p.relative_to(project / name): p.read_bytes() for p in (project / name).rglob("*") if p.is_file()})
    assert trees[0] == trees[1] and len(trees[0]) == 6


def test_a_name_that_means_two_files_is_refused(project: Path) -> None:
    (project / "steps.py").write_text("another")
    (project / "recipes" / "mine.yaml").write_text(RECIPE)
    with pytest.raises(InputError, match=r"^filter\.steps\.0\.python: steps\.py is there beside the recipe and in this folder"):
        staged(project / "job", Path("recipes/mine.yaml"))


def test_what_is_too_large_stays_and_that_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_upload, "LARGEST", 30)
    (project / "recipes" / "mine.yaml").write_text(RECIPE)
    staged(project / "job", Path("recipes/mine.yaml"))
    assert (project / "job" / "steps.py").exists() and not (project / "job" / "outside").exists()
    assert said[0].startswith("filter.steps.1.classifier.model: ../models/quality has 0 MB and does not travel; put it where all nodes")


def test_a_broken_recipe_is_one_sentence_before_anything_is_sent(project: Path) -> None:
    (project / "broken.yaml").write_text("filter: [\n")
    with pytest.raises(CorpusmillError, match=r"broken\.yaml:\d+: not valid YAML"):
        staged(project / "job", Path("broken.yaml"))
    assert not (project / "job").exists()


def order(**given: object) -> ray_job.Order:
    return ray_job.Order(**{"recipe": "demo", "inputs": ["/in/a b.warc.gz"], "output": "/out", **given})  # type: ignore[arg-type]


def test_the_command_of_a_job_is_one_that_our_own_command_line_takes(tmp_path: Path) -> None:
    from typer.main import get_command

    from corpusmill.cli import app

    upload = ray_job.prepare(tmp_path, order(overrides=["dedup.threshold=0.8"], options=["--to=dedup", "--workers=3"]))
    assert upload.command == ["run", "recipe.yaml", "/in/a b.warc.gz", "--output", "/out", "--engine", "ray", "--to=dedup", "--workers=3"]
    command = get_command(app).commands["run"]  # type: ignore[attr-defined]
    given = command.make_context("run", upload.command[1:]).params
    assert (given["inputs"], given["output"], given["to"], given["workers"]) == (["/in/a b.warc.gz"], "/out", "dedup", 3)
    assert yaml.safe_load((tmp_path / "work" / "recipe.yaml").read_text())["dedup"]["threshold"] == 0.8
    assert upload.environment == {
        "working_dir": str(tmp_path / "work"), "py_modules": [str(tmp_path / "code" / "corpusmill")], "env_vars": {},
    }  # fmt: skip
    shell = ray_job.entrypoint(upload.command)
    assert shell == f"unset OMP_NUM_THREADS; P={sys.executable}; [ -x $P ] || P=python; exec $P -m corpusmill {shlex.join(upload.command)}"


def test_a_job_that_brings_its_libraries_brings_a_wheel_with_all_rooms(tmp_path: Path) -> None:
    upload = ray_job.prepare(tmp_path, order(extras="s3,transformers"))
    [package] = upload.environment["pip"]["packages"]
    place, name = package.removesuffix("[s3,transformers]").split("/")
    assert place == "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}" and package.endswith(".whl[s3,transformers]")
    assert "py_modules" not in upload.environment
    names = zipfile.ZipFile(tmp_path / "work" / name).namelist()
    for room in ("pipeline/run.py", "filters/stage.py", "dedup/stage.py", "tokenize/tokens_stage.py", "train/pretrain.py", "cli/run.py"):
        assert f"corpusmill/{room}" in names
    assert "corpusmill/recipes/demo.yaml" in names and "corpusmill/tokenize/__init__.py" not in names
    assert (
        ray_job.entrypoint(["run", "x"], this_python=False, threads_given=True) == "exec python -m corpusmill run x"
    )  # that of the job's own environment


def test_paths_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ray_job.absolute("crawl/*.warc.gz") == f"{tmp_path}/crawl/*.warc.gz"
    for given in ("s3://bucket/crawl", "cc:CC-MAIN-2026-04?segments=3"):
        assert ray_job.absolute(given) == given


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID=AKIA", "HF_TOKEN=x", "DB_PASSWORD=x"])
def test_a_secret_is_no_part_of_a_job(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrX")
    with pytest.raises(InputError, match=r"^--env \w+: everybody who sees the cluster's dashboard would read it") as refused:
        ray_job.job_environment([name])
    assert "wJalrX" not in str(refused.value) and "AKIA" not in str(refused.value)


def test_variables_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    found = ray_job.job_environment(["AWS_ENDPOINT_URL", "CORPUSMILL_DEBUG=1"])
    assert found == {"AWS_ENDPOINT_URL": "http://store:9000", "CORPUSMILL_DEBUG": "1"}
    with pytest.raises(InputError, match=r"^--env NOT_THERE: there is no such"):
        ray_job.job_environment(["NOT_THERE"])


def test_no_cluster_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ray_job.main(["demo", "x", "--output", "y", "--address", f"http://127.0.0.1:{port}"]) == InputError.exit_code
    err = capsys.readouterr().err
    assert err.startswith(f"corpusmill: RAY_ADDRESS=http://127.0.0.1:{port}: no Ray cluster takes jobs there (")
    assert err.count("\n") == 1


def test_where_jobs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given; else a cluster that is written down here and alive; else Ray's default."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    assert ray_job.target(None) == (ray_job.LOCAL_CLUSTER, False)
    cluster.FOLDER.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], env=os.environ | {cluster.MARK: "m1"}) as process:
        head = cluster.Node("head", process.pid, 0, [], "")
        here = cluster.Cluster("m1", "127.0.0.2:1", "http://127.0.0.1:2", "token", "temp", cluster.package(), [head])
        try:
            cluster.write(here, cluster.FOLDER)
            assert ray_job.target("http://head:8265") == ("http://head:8265", False)
            assert os.environ["RAY_AUTH_MODE"] == ""
            assert ray_job.target(None) == ("http://127.0.0.1:2", True)
            assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"]) == ("token", "token")
            cluster.write(dataclasses.replace(here, package="/another/checkout"), cluster.FOLDER)
            assert ray_job.target(None) == ("http://127.0.0.1:2", False)
        finally:
            process.kill()
    assert ray_job.target(None) == (ray_job.LOCAL_CLUSTER, False)


def test_code_that_the_nodes_import_already_is_not_sent(tmp_path: Path) -> None:
    upload = ray_job.prepare(tmp_path, order(same_code=True))
    assert upload.environment == {"working_dir": str(tmp_path / "work"), "env_vars": {}}
    assert not (tmp_path / "work" / "corpusmill").exists()


def test_a_token_is_offered_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    ray_job.use_token()
    assert "RAY_AUTH_MODE" not in ray_job.os.environ
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    ray_job.use_token()
    assert ray_job.os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray_job.use_token()
    assert ray_job.os.environ["RAY_AUTH_MODE"] == "disabled"
