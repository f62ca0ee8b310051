"""Tests commands that look at a run with input that does not fit: one sentence, exit code 2, and nothing on standard output."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

#: The command, and what its sentence names. RUN is a run, EMPTY a folder, FILES a folder with files of several kinds.
REFUSED = [
    ("inspect FILES/bad.jsonl", "bad.jsonl: not a readable Parquet file"),
    ("inspect FILES/bad.parquet", "not a readable Parquet file"),
    ("inspect FILES/index.parquet --kept", "it has no column 'kept'"),
    ("inspect FILES/index.parquet --stage filter", "--stage is for a run's folder"),
    ("inspect FILES/missing", "no such file or run"),
    ("inspect RUN --stage filter --rule shrt", "there is no rule 'shrt' (did you mean short? expected one of "),
    ("inspect RUN --stage filter --columns word", "there is no column 'word' (did you mean words?"),
    ("inspect RUN --stage filter --where 'word = 1'", "there is no column 'word'"),
    ("inspect RUN --where 'words <'", "not valid SQL"),
    ("inspect RUN --where 'true); DROP TABLE x; SELECT (1'", "--where: expected one condition in SQL"),
    ("inspect RUN --where \"url IN (FROM read_text('/etc/passwd'))\"", "/etc/passwd: a query may read the files of its run alone"),
    ("inspect RUN --stage filtr", "the stage 'filtr' has no report (did you mean filter? expected one of filter, dedup, ingest, tokens)"),
    ("sample RUN --near", "--near needs one --rule with a threshold (rules of filter that have one: short, symbols, language, never)"),
    ("sample RUN --near --rule near_duplicate", "the rule 'near_duplicate' has no threshold"),
    ("sample RUN --stage align", "has no report"),
    ("why RUN '[a-z]\x1b[2J'", "no document has the URL or id"),
    ("why EMPTY x", "not a run, as it has no run.json"),
    ("diff RUN RUN --stage sft", "the stage 'sft' has no report (expected one of ingest, filter, dedup, tokens)"),
    ("diff RUN EMPTY", "not a run, as it has no run.json"),
    ("trace RUN --shard 7 --token 0", "there is no shard 7"),
    ("trace RUN --shard 0 --token 9999999", "there is no token 9999999; it has "),
    ("trace RUN --shard 0 --token 0 --split test", "no token shards of the split 'test' (expected one of train, validation)"),
    ("query RUN \"SELECT * FROM read_text('/etc/passwd')\"", "/etc/passwd: a query may read the files of its run alone"),
    ("query RUN \"SELECT '\x1b[31mred' FROM nope\"", "there is no table 'nope'"),
    ("query RUN 'SELECT 1' --json --csv", "exclude each other"),
    ("report EMPTY", "not a run, as it has no run.json"),
    ("report EMPTY/none", "no such run"),
    ("status EMPTY --watch", "not a run, as it has no run.json"),
    ("explore EMPTY", "not a run"),
    ("explore RUN --stage align", "the stage 'align' has no report"),
    ("export EMPTY EMPTY/out", "not a run, as it has no run.json"),
    ("recipe gopher-papr", "gopher-papr: no such recipe or run (did you mean gopher-paper?"),
    ("recipe fineweb --stage tokens", "tokens: fineweb has no such stage (expected one of ingest, filter, dedup)."),
    ("recipe fineweb-2", "fineweb-2 also needs `language`"),
    ("recipe RUN --set dedup.threshold=0.5", "is a run, whose recipe is shown as it is"),
]


@pytest.fixture(scope="module")
def folders(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    files, empty = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("empty")
    (files / "bad.jsonl").write_text('{"a": 1}\nno json\n')
    (files / "bad.parquet").write_text("no parquet")
    (files / "index.parquet").write_bytes((run_folder / "tokens/train/tokens-00000.index.parquet").read_bytes())
    return {"RUN": str(run_folder), "EMPTY": str(empty), "FILES": str(files)}


@pytest.mark.parametrize(("command", "named"), REFUSED)
def test_what_does_not_fit_is_one_sentence(
    folders: dict[str, str], corpusmill: Callable[..., tuple[int, bytes, str]], command: str, named: str
) -> None:
    for name, folder in folders.items():
        command = command.replace(name, folder)
    code, out, err = corpusmill(*shlex.split(command))
    assert code == 2 and not out and err.startswith("corpusmill: ") and err.count("\n") == 1 and "\x1b" not in err
    assert named in err
