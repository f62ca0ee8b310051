"""What is sent to a cluster; the cluster itself is not started here."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from corpusmill.pipeline import ray_job
from corpusmill.pipeline.errors import InputError


def test_the_package_travels_whole_with_its_links_followed(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("ingest: {}\n")
    folder = tmp_path / "job"
    assert ray_job.stage_files(folder, str(recipe)) == "recipe.yaml"
    assert (folder / "recipe.yaml").read_text() == "ingest: {}\n"
    assert not [p for p in folder.rglob("*") if p.is_symlink() or p.name == "__pycache__"]
    assert not (folder / "corpusmill" / "tokenize" / "__init__.py").exists()
    rooms = ("filters", "dedup", "train", "pipeline.text", "pipeline.ingest", "tokenize.tokens_stage")
    code = (
        f"import corpusmill, tokenize, {', '.join(f'corpusmill.{room}' for room in rooms)}; print(corpusmill.__file__, tokenize.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    package, standard = done.stdout.split()
    assert package == str(folder / "corpusmill" / "__init__.py")
    assert standard == __import__("tokenize").__file__


def test_a_shipped_recipe_is_named_and_paths_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ray_job.stage_files(tmp_path / "job", "demo") == "demo"
    assert ray_job.absolute("crawl/*.warc.gz") == f"{tmp_path}/crawl/*.warc.gz"
    assert ray_job.absolute("s3://bucket/crawl") == "s3://bucket/crawl"


def test_the_command_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(ray_job, "check_cluster", lambda address: None)
    monkeypatch.setattr(ray_job, "use_token", lambda: None)
    monkeypatch.setattr(
        ray_job.subprocess, "run", lambda command, check: commands.append(command) or subprocess.CompletedProcess(command, 7)
    )
    arguments = [
        "demo",
        "/in/a b.warc.gz",
        "--output",
        "/out",
        "--address",
        "http://head:8265",
        "--set",
        "dedup.threshold=0.8",
        "--to",
        "dedup",
    ]
    assert ray_job.main(arguments) == 7
    [command] = commands
    assert command[1:5] == ["job", "submit", "--address", "http://head:8265"]
    assert command[command.index("--") + 1 : -1] == ["sh", "-c"]
    run = "run demo '/in/a b.warc.gz' --output /out --engine ray --set=dedup.threshold=0.8 --to=dedup"
    assert command[-1] == f"P={sys.executable}; [ -x $P ] || P=python; exec $P -m corpusmill {run}"


def test_no_cluster_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ray_job.main(["demo", "x", "--output", "y", "--address", f"http://127.0.0.1:{port}"]) == InputError.exit_code
    err = capsys.readouterr().err
    assert err.startswith(f"corpusmill: RAY_ADDRESS=http://127.0.0.1:{port}: no Ray cluster takes jobs there (")
    assert err.count("\n") == 1


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
