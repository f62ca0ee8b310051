"""Tests the verification of a whole run: a correct run has no findings, and each planted fault is found."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inline_run import run_inline

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import MANIFEST
from corpusmill.pipeline.runner import WORKING
from corpusmill.pipeline.shards import in_parquet
from corpusmill.pipeline.storage import TEMPORARY
from corpusmill.report.whole.verify import verify

RECIPE = """
ingest: {task_mb: 1}
filter: {steps: [{gopher_quality: {}}], thresholds: {gopher_below_alpha_threshold: off}}
dedup: {threshold: 0.8}
tokenizer: {vocab_size: 512}
tokens: {validation_share: 0.1}
"""


def _passages() -> list[str]:
    """Returns 200 passages of 8,000 characters of the standard library's sources."""
    text = "".join(path.read_text("utf-8", "replace") for path in sorted(Path(json.__file__).parents[1].glob("*.py")))
    return [text[begin : begin + 8000] for begin in range(0, 1_600_000, 8000)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified")
    (folder / "in").mkdir()
    passages = _passages()
    for host, some in (
        ("rows", passages[:120]),
        ("mirror", passages[120:] + passages[:120:4]),
    ):  # some copies; and each stage has several shards
        rows = [{"text": part, "url": f"http://{host}.test/{n}"} for n, part in enumerate(some)]
        (folder / f"in/{host}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_inline(folder, RECIPE, folder / "in")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def faults(run: Path) -> list[str]:
    return [sentence for check in verify(str(run)) for sentence in check.faults]


def test_a_run_that_is_right(finished: Path) -> None:
    checks = verify(str(finished))
    assert [check.name for check in checks] == ["ingest", "filter", "dedup", "tokenizer", "tokens"]
    assert not [sentence for check in checks for sentence in check.faults + check.notes]
    for check in checks:
        files = [path for path in (finished / check.name).rglob("*") if path.is_file() and path.name != MANIFEST]
        files = [path for path in files if not path.relative_to(finished / check.name).as_posix().startswith(WORKING)]
        assert check.files == len(files) and check.bytes == sum(path.stat().st_size for path in files)
    assert checks[0].rows == sum(pq.read_metadata(path).num_rows for path in (finished / "ingest/report").iterdir()) > 100


# ---- faults ---------------------------------------------------------------------------------------------


def pick(run: Path, draw: random.Random, pattern: str = "*/**/*") -> Path:
    """Returns a file that a manifest names."""
    return draw.choice(sorted(path for path in run.glob(pattern) if path.is_file() and path.name != MANIFEST and path.stat().st_size))


def flip_a_bit(run: Path, draw: random.Random) -> None:
    path = pick(run, draw)
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def remove_a_file(run: Path, draw: random.Random) -> None:
    pick(run, draw).unlink()


def add_a_file(run: Path, draw: random.Random) -> None:
    folder = draw.choice(["ingest/data", "filter/report", "dedup/clusters", "tokens/train"])
    (run / folder / "part-99999.parquet").write_bytes(b"PAR1")


def hide(run: Path, path: Path) -> None:
    """Updates every manifest for a changed file, as if it had been written and read so."""
    name, sha256 = path.relative_to(run).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()
    stage, _, own = name.partition("/")
    for manifest in run.glob(f"*/{MANIFEST}"):
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        for row in rows:
            for ref in row.get("inputs", ()):
                if ref["path"] == name:
                    ref["fingerprint"] = sha256
            for output in row.get("outputs", ()):
                if manifest.parent.name == stage and output["path"] == own:
                    output["sha256"], output["bytes"] = sha256, path.stat().st_size
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rewritten(run: Path, pattern: str, draw: random.Random, change: Callable[[list[dict], int], object]) -> None:
    """Changes one row of a table with rows, and hides the change."""
    path = draw.choice([p for p in sorted(run.glob(pattern)) if pq.read_metadata(p).num_rows > 1])
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows, draw.randrange(len(rows)))
    path.write_bytes(in_parquet(pa.Table.from_pylist(rows, table.schema)))
    hide(run, path)


DATA_OR_REPORT = "[fdi]*/[dr][ae][tp][ao]*/part-*.parquet"


def lose_a_row(run: Path, draw: random.Random) -> None:
    rewritten(run, DATA_OR_REPORT, draw, lambda rows, place: rows.pop(place))


def double_a_row(run: Path, draw: random.Random) -> None:
    rewritten(run, DATA_OR_REPORT, draw, lambda rows, place: rows.insert(place, rows[place]))


def change_an_id(run: Path, draw: random.Random) -> None:
    rewritten(run, DATA_OR_REPORT, draw, lambda rows, place: rows[place].update(id="0" * 32))


def edit_a_verdict(run: Path, draw: random.Random) -> None:
    def change(rows: list[dict], place: int) -> None:
        kept = rows[place]["kept"]
        rows[place].update(kept=not kept, failed=["gopher_short_doc"] if kept else [], chars_out=0 if kept else 100)

    rewritten(run, "filter/report/*.parquet", draw, change)


def edit_a_value(run: Path, draw: random.Random) -> None:
    def change(rows: list[dict], place: int) -> None:
        rows[place].update(gopher_words=1000 if "gopher_short_doc" in rows[place]["failed"] else 0)

    rewritten(run, "filter/report/*.parquet", draw, change)


def edit_a_count(run: Path, draw: random.Random) -> None:
    path = run / draw.choice(["ingest", "filter", "dedup"]) / MANIFEST
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    draw.choice([row for row in rows if row.get("rows_in") and any(o["path"].startswith("report/") for o in row["outputs"])])["kept"] += 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_the_recipe(run: Path, draw: random.Random) -> None:
    description = json.loads((run / "run.json").read_text())
    description["recipe"]["dedup"]["threshold"] = round(draw.uniform(0.5, 0.79), 3)
    (run / "run.json").write_text(json.dumps(description))


def double_a_record(run: Path, draw: random.Random) -> None:
    """Doubles a record of a crawl file in the stage's output, with all its consequences in that stage."""
    shard = draw.choice(sorted(path.name for path in (run / "ingest/data").iterdir()))
    document = draw.choice(pq.read_table(run / "ingest/data" / shard)["id"].to_pylist())
    for folder in ("data", "report"):
        path = run / "ingest" / folder / shard
        table = pq.read_table(path)
        rows = table.to_pylist()
        rows.append(next(row for row in rows if row["id"] == document))
        path.write_bytes(in_parquet(pa.Table.from_pylist(rows, table.schema)))
        hide(run, path)
    change_a_row(run / "ingest" / MANIFEST, shard, lambda row: row.update(rows_in=row["rows_in"] + 1, kept=row["kept"] + 1))


def read_a_shard_twice(run: Path, draw: random.Random) -> None:
    """Makes a task read another task's shard, with that shard's outputs."""
    first, second = draw.sample(sorted(path.name for path in (run / "dedup/data").iterdir()), 2)
    for folder in ("data", "report"):
        shutil.copyfile(run / "dedup" / folder / first, run / "dedup" / folder / second)
        hide(run, run / "dedup" / folder / second)
    rows = {row["task"]: row for row in map(json.loads, (run / "dedup" / MANIFEST).read_text().splitlines()) if row["kind"] == "task"}
    same = {name: rows[Path(first).stem][name] for name in ("inputs", "rows_in", "kept", "dropped")}
    change_a_row(run / "dedup" / MANIFEST, second, lambda row: row.update(same))


def change_a_row(manifest: Path, shard: str, change: Callable[[dict], object]) -> None:
    """Changes the row of the task that writes a shard of documents."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    change(next(row for row in rows if any(output["path"] == f"data/{shard}" for output in row.get("outputs", ()))))
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))


def leave_a_temporary_file(run: Path, draw: random.Random) -> None:
    (run / draw.choice(["ingest", "filter", "dedup"]) / "data" / f"{TEMPORARY}7-part-00000.parquet").write_bytes(b"PAR1")


PLANTS = [
    flip_a_bit, flip_a_bit, remove_a_file, add_a_file, lose_a_row, lose_a_row, double_a_row, change_an_id,
    edit_a_verdict, edit_a_value, edit_a_count, edit_the_recipe, double_a_record, read_a_shard_twice, leave_a_temporary_file,
]  # fmt: skip


def test_each_planted_fault_is_found(finished: Path, tmp_path: Path) -> None:
    for seed, plant in enumerate(PLANTS):
        run = tmp_path / str(seed)
        shutil.copytree(finished, run)
        plant(run, random.Random(seed))
        found = faults(run)
        assert found, f"{plant.__name__}, seed {seed}"
        assert all(str(run) in sentence and sentence.endswith(".") and "\n" not in sentence for sentence in found), found
        shutil.rmtree(run)


def test_a_file_that_a_list_names(run: Path) -> None:
    """Finds a change of the file alone, and a change on which the manifest agrees but the list does not."""
    keys = pick(run, random.Random(1), "dedup/keys/*.arrow")
    keys.write_bytes(keys.read_bytes() + b"\0")
    assert any(sentence.startswith(f"{keys}: this file is of ") for sentence in faults(run))
    hide(run, keys)
    kind = keys.name.split(".")[1]
    task = f"candidates/{'buckets' if kind == 'bands' else kind}-00000"
    assert faults(run) == [f"{keys}: the task {task} has read another content than the manifest of dedup says."]
    listed = run / "dedup/lists" / f"keys-{kind}.files.json"
    listed.write_bytes(b"[]")
    hide(run, listed)
    (said,) = faults(run)
    assert said.startswith(f"{listed}: not a list of files (")


@pytest.mark.parametrize("without", ["log.jsonl", "progress.json"])
def test_a_manifest_that_lost_its_rows(finished: Path, tmp_path: Path, without: str) -> None:
    """16 forms and more: the manifest of a finished stage is deleted, emptied, halved, or lacks its last row, and the run a file that would
    say so."""
    for stage in ("ingest", "filter", "dedup", "tokenizer", "tokens"):
        content = (finished / stage / MANIFEST).read_bytes()
        for form in (None, b"", content[: len(content) // 2], b"".join(content.splitlines(keepends=True)[:-1])):
            run = tmp_path / "run"
            shutil.copytree(finished, run)
            (run / stage / MANIFEST).unlink() if form is None else (run / stage / MANIFEST).write_bytes(form)
            (run / without).unlink()
            found = [sentence for sentence in faults(run) if sentence.startswith(f"{run / stage / MANIFEST}: ")]
            assert found, (stage, form and len(form))
            shutil.rmtree(run)


def test_half_a_run_and_no_run(corpusmill, run: Path, tmp_path: Path) -> None:
    manifest = run / "dedup" / MANIFEST
    rows = [line for line in manifest.read_text().splitlines() if '"kind":"complete"' not in line]
    manifest.write_text("".join(f"{row}\n" for row in rows[:-1]))
    for name in ("tokenizer", "tokens"):
        shutil.rmtree(run / name)
    log = run / "log.jsonl"
    log.write_text(log.read_text().partition('"event":"stage_end","run":"run","stage":"dedup"')[0])
    (run / "progress.json").write_text(json.dumps(json.loads((run / "progress.json").read_text()) | {"ended": None}))
    checks = {check.name: check for check in verify(str(run))}
    assert not any(check.faults for check in checks.values())
    done = sum('"kind":"task"' in row for row in rows[:-1])
    assert f"tasks done: {done}" in checks["dedup"].notes[0] and "not run yet" in checks["tokens"].notes[0]
    code, out, _ = corpusmill("verify", run)
    assert code == 0 and b"not all stages are finished: dedup, tokenizer, tokens." in b" ".join(out.split())
    with pytest.raises(InputError, match="nothing: no such run"):
        verify(str(tmp_path / "nothing"))


def test_the_command(corpusmill, finished: Path, run: Path) -> None:
    code, out, _ = corpusmill("verify", finished)
    assert code == 0 and b"every document that came in is accounted for" in out
    next((run / "filter/report").iterdir()).unlink()
    code, out, _ = corpusmill("verify", run)
    assert code == 1 and b"Fault: " in out and b"missing" in out
    code, out, _ = corpusmill("verify", run, "--json")
    assert code == 1 and not json.loads(out)["good"]
