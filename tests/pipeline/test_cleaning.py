"""What stays in the folder of a finished stage."""

from pathlib import Path

from corpusmill.pipeline.cleaning import remove_unnamed
from corpusmill.pipeline.runner import WORKING
from corpusmill.pipeline.storage import TEMPORARY, Storage


def test_what_is_named_stays_and_working_state_but_for_what_a_kill_left(tmp_path: Path) -> None:
    stay = ["manifest.jsonl", "data/part-00000.parquet", "checkpoints/step-10/model.safetensors", "logs/rank-0.txt"]
    stay.append(f"checkpoints/{TEMPORARY}step-20/model.safetensors")  # a state's folder, which its owner tidies up
    go = ["data/part-00001.parquet", f"data/{TEMPORARY}7-part-00000.parquet", f"checkpoints/{TEMPORARY}7-reference-1.safetensors"]
    for path in (*stay, *go):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    remove_unnamed(Storage(str(tmp_path)), stay[:2], WORKING)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(stay)
