"""Tests properties of every format: equal bytes, all or nothing, one sentence for an impossible export."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from token_sets import write_token_set

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.tokenize.append import append
from corpusmill.tokenize.export.export import FORMATS, export, new_folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied(real_run, tmp_path):
    """Copies the real run's tokens, so that a test may damage them."""
    folder = tmp_path / "run"
    for name in ("tokens/train", "tokens/validation", "tokenizer"):
        shutil.copytree(Path(real_run.folder, name), folder / name)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_has_equal_bytes_each_time_and_says_what_is_there(real_run, exported, name):
    folder, again = (exported(real_run, name, place) for place in ("one", "two"))
    assert content(folder) == content(again)
    said = json.loads((folder / "export.json").read_text())
    tokenizer = Path(real_run.folder, "tokenizer", "tokenizer.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == tokenizer
    assert (said["format"], said["dtype"], said["end_of_text"], said["vocabulary_size"]) == (name, "uint16", 0, 600)
    assert said["tokenizer_sha256"] == hashlib.sha256(tokenizer).hexdigest()
    assert said["files"] == {path: len(found) for path, found in content(folder).items() if path != "export.json"}
    for split, found in said["splits"].items():
        documents = real_run.documents(split)
        assert (found["tokens"], found["documents"]) == (len(real_run.stream(split)), len(documents))
        assert list(found["shards"]) == [shard.file for shard in real_run.shards(split).shards]


def test_sequences_are_for_formats_with_rows(real_run, exported, tmp_path):
    for name in ("parquet", "mds"):
        one, two = (content(exported(real_run, name, f"{name} {place}", sequence_length=100)) for place in ("one", "two"))
        assert one == two and json.loads(one["export.json"])["sequence_length"] == 100
        for place in ("one", "two"):
            shutil.rmtree(tmp_path / f"{name} {place}")
    with pytest.raises(InputError, match="--sequence-length 100: megatron is read at any length; only parquet and mds"):
        exported(real_run, "megatron", sequence_length=100)
    assert os.listdir(tmp_path) == []


def test_a_damaged_shard_leaves_nothing(copied, tmp_path):
    path = copied / "tokens/train/tokens-00001.bin"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    for name in FORMATS:
        with pytest.raises(InputError, match=r"tokens-00001\.bin: this token shard is not the one that was written.*nothing was exported"):
            export(str(copied), name, str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["run"]


def test_tokens_of_another_tokenizer_are_refused(copied, tmp_path):
    path = copied / "tokenizer/tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(InputError, match="made by another tokenizer"):
        export(str(copied), "nanogpt", str(tmp_path / "out"))
    path.unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        export(str(copied), "nanogpt", str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["run"]


def test_a_set_is_exported_with_the_tokenizer_of_a_run_in_it(copied, tmp_path, real_run):
    (copied / "tokens/manifest.jsonl").write_bytes(Path(real_run.folder, "tokens/manifest.jsonl").read_bytes())
    append(str(tmp_path / "set"), str(copied))
    export(str(tmp_path / "set"), "nanogpt", str(tmp_path / "of_set"))
    export(str(copied), "nanogpt", str(tmp_path / "of_run"))
    of_set, of_run = content(tmp_path / "of_set"), content(tmp_path / "of_run")
    assert {name for name in of_run if of_set[name] != of_run[name]} == {"export.json"}  # which names the set
    with pytest.raises(InputError, match="among the token shards"):
        export(str(tmp_path / "set"), "nanogpt", str(tmp_path / "set/train/out"))
    (copied / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"set/tokenizer/tokenizer\.json: no such file"):
        export(str(tmp_path / "set"), "nanogpt", str(tmp_path / "out"))


def test_a_run_without_tokens_is_refused(tmp_path, copied):
    shutil.rmtree(copied / "tokens/validation")
    with pytest.raises(InputError, match=r"tokens/validation holds no token shards"):
        export(str(copied), "nanogpt", str(tmp_path / "out"))
    assert export(str(copied), "nanogpt", str(tmp_path / "out"), ("train",))["splits"].keys() == {"train"}


def test_an_empty_split_is_left_out(copied, tmp_path):
    path = copied / "tokens/validation/shards.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shards": [], "tokens": 0, "documents": 0, "utf8_bytes": 0}))
    for name in ("megatron", "parquet"):
        export(str(copied), name, str(tmp_path / name))
        assert not [found for found in content(tmp_path / name) if "val" in found]
    with pytest.raises(InputError, match="there are no tokens of validation to export"):
        export(str(copied), "nanogpt", str(tmp_path / "out"), ("validation",))
    assert not (tmp_path / "out").exists()


def test_a_remote_run_gives_the_same_bytes(copied, tmp_path):
    memory = Storage("memory://export-run")
    for path in copied.rglob("*"):
        if path.is_file():
            memory.write_bytes(path.relative_to(copied).as_posix(), path.read_bytes())
    for name in ("megatron", "parquet"):
        export(str(copied), name, str(tmp_path / f"local-{name}"))
        export("memory://export-run", name, str(tmp_path / f"remote-{name}"))
        local, remote = (content(tmp_path / f"{place}-{name}") for place in ("local", "remote"))
        assert {path: found for path, found in local.items() if path != "export.json"} == {
            path: found for path, found in remote.items() if path != "export.json"
        }
    memory.remove_folder("")


def test_folders_with_anything_in_them_are_kept(real_run, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    export(real_run.folder, "nanogpt", str(folder))  # an empty folder is accepted
    before = content(folder)
    with pytest.raises(InputError, match="holds an earlier export; --force replaces it"):
        export(real_run.folder, "megatron", str(folder))
    assert content(folder) == before
    export(real_run.folder, "megatron", str(folder), force=True)
    assert {"train.idx", "train.bin"} <= set(content(folder)) and "val.bin" not in content(folder)
    for foreign in ("thesis.txt", "export.json"):
        other = tmp_path / foreign.split(".")[0]
        other.mkdir()
        (other / foreign).write_text("mine")
        with pytest.raises(InputError, match="not an empty folder"):
            export(real_run.folder, "megatron", str(other), force=True)
        assert content(other) == {foreign: b"mine"}
    with pytest.raises(InputError, match="not an empty folder"):
        export(real_run.folder, "megatron", str(tmp_path / "thesis" / "thesis.txt"), force=True)
    with pytest.raises(InputError, match="not an empty folder"):
        export(real_run.folder, "megatron", "/", force=True)
    with pytest.raises(InputError, match="local folder"):
        export(real_run.folder, "megatron", "s3://bucket/out")
    with pytest.raises(InputError, match="the folder of the stage tokens"):
        export(real_run.folder, "megatron", f"{real_run.folder}/tokens/out")
    assert sorted(os.listdir(tmp_path)) == ["export", "out", "thesis"]


def test_two_writers_of_one_folder(tmp_path):
    out = str(tmp_path / "out")
    with new_folder(out, lambda _: False) as folder:
        (folder / "a").write_text("1")
        with pytest.raises(InputError, match="another corpusmill is writing this folder"), new_folder(out, lambda _: False):
            pass
    assert content(tmp_path) == {"out/a": b"1"}


def test_what_comes_into_the_folder_meanwhile_is_kept(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="not an empty folder"), new_folder(str(out), lambda found: not any(found.iterdir())) as folder:
        (folder / "a").write_text("1")
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    assert content(tmp_path) == {"out/thesis.txt": b"mine"}


KILLED = """
import sys, time
from corpusmill.tokenize.export import export as module
class Stops(module.Megatron):
    def finish(self, *arguments):
        print("written", flush=True)
        time.sleep(60)
module.FORMATS["megatron"] = Stops
module.export(sys.argv[1], "megatron", sys.argv[2], force=True)
"""


def test_a_killed_export_leaves_the_earlier_one_and_the_next_goes_through(real_run, tmp_path):
    export(real_run.folder, "nanogpt", str(tmp_path / "out"))
    before = content(tmp_path / "out")
    process = subprocess.Popen([sys.executable, "-c", KILLED, real_run.folder, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert content(tmp_path / "out") == before and (tmp_path / ".tmp-out" / "train.idx").exists()
    export(real_run.folder, "megatron", str(tmp_path / "out"), force=True)
    assert os.listdir(tmp_path) == ["out"]
    assert set(content(tmp_path / "out")) == {
        "train.bin", "train.idx", "validation.bin", "validation.idx", "tokenizer.json", "export.json"
    }  # fmt: skip


def test_killed_between_the_renames_the_earlier_one_comes_back(real_run, tmp_path):
    export(real_run.folder, "nanogpt", str(tmp_path / "out"))
    before = content(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".tmp-out-old")
    with pytest.raises(InputError, match="earlier export"):
        export(real_run.folder, "nanogpt", str(tmp_path / "out"))
    assert content(tmp_path / "out") == before
    shutil.copytree(tmp_path / "out", tmp_path / ".tmp-out-old")  # killed before the old one was removed
    export(real_run.folder, "megatron", str(tmp_path / "out"), force=True)
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out" / "train.idx").exists()


MEMORY = """
import os, shutil, sys
os.fsync = lambda _: None
from corpusmill.pipeline.engine import peak_memory_mb
from corpusmill.tokenize.export.export import export
run, out, *names = sys.argv[1:]
for name in names:
    export(run, name, f"{out}/small-{name}", ["validation"])
before = peak_memory_mb()
for name in names:
    export(run, name, f"{out}/{name}", ["train"])
    print(peak_memory_mb() - before, name)
    shutil.rmtree(f"{out}/{name}")
"""
#: MB: the maps of two shards (20 each) and a format's own buffers: a row group and its encoding, a shard of MDS (64).
HELD = {"parquet": 90, "mds": 130}


@pytest.fixture(scope="module")
def large_run(tmp_path_factory, real_run):
    """Makes 160 MB of tokens in 8 shards."""
    folder = tmp_path_factory.mktemp("large")
    shutil.copytree(Path(real_run.folder, "tokenizer"), folder / "tokenizer")
    sha256 = hashlib.sha256((folder / "tokenizer/tokenizer.json").read_bytes()).hexdigest()
    random = np.random.default_rng(1)
    documents = [random.integers(4, 60_000, 100_000).astype(np.uint16) for _ in range(100)]
    for split, shards in (("train", [documents] * 8), ("validation", [documents[:1]])):
        write_token_set(folder / "tokens" / split, shards, 60_000, sha256, split=split)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    "names",
    [set(FORMATS) - set(HELD), {"mds"}, pytest.param({"parquet"}, marks=pytest.mark.long)],
    ids=lambda names: " ".join(sorted(names)),
)
def test_memory_does_not_grow_with_the_set(large_run, tmp_path, names):
    command = [sys.executable, "-c", MEMORY, str(large_run), str(tmp_path / "out"), *sorted(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = [line.split() for line in done.stdout.splitlines()]
    assert [name for _, name in grown] == sorted(names) and all(int(size) < HELD.get(name, 50) for size, name in grown), done.stdout


def test_the_command(real_run, tmp_path, monkeypatch, capsys):
    from corpusmill import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["corpusmill", "tokens", "export", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    out = str(tmp_path / "out")
    code, said, _ = call(real_run.folder, "--format", "megatron", "--output", out, "--split", "train")
    assert code == 0 and f"train: {len(real_run.stream('train')):,} tokens of" in said and "validation" not in said
    code, _, fault = call(real_run.folder, "--format", "megatron", "--output", out)
    assert code == 2 and "earlier export" in fault and len(fault.splitlines()) == 1
    assert call(real_run.folder, "--format", "megatron", "--output", out, "--force")[0] == 0
    assert call(real_run.folder, "--format", "csv", "--output", out)[0] == 2


def test_the_command_offers_every_format():
    from corpusmill.cli.tokens import ExportFormat

    assert get_args(ExportFormat) == tuple(FORMATS)
