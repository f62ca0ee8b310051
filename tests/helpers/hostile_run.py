"""Writes a run in which every name and text is an attack on the page that shows it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from built_run import RunBuilder, write_run

from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.storage import Storage

#: Each attack would set `window.ran`. Each is short enough to be shown whole in a chart's label.
ATTACKS = (
    "<script>window.ran=1</script>",
    "</script></style></title><svg onload=ran=2>",
    "__proto__",
    '"><img src=x onerror=window.ran=3>',
    "<iframe srcdoc='<script>parent.ran=4</script>'>",
    '<a href="javascript:ran=5" onclick=ran=6>click</a>',
    "<style>main{display:none}</style>",
    "{{7*7}} ${7*7} <%=7*7%> {% raw %}",
    "left \u202eright\u2066 \x1b[2Jwiped\x07",
    "<!--<script> ]]> '\"`;--\\",
    "&lt;b&gt; &#60;script&#62; %{x} <br>",
)


def attack(number: int) -> str:
    return ATTACKS[number % len(ATTACKS)]


def write_hostile_run(folder: Path) -> Path:
    """Writes all stages; columns, rules, languages, hosts, crawl files, warnings, classifiers, curves, scores and texts are attacks."""
    run = write_run(folder)
    _attack_filter(folder)
    _attack_classifier(folder)
    run.json(
        "run.json",
        {"inputs": list(ATTACKS), "recipe": dict(zip(ATTACKS, ATTACKS, strict=True)), "versions": dict(zip(ATTACKS, ATTACKS, strict=True))},
    )
    lines = [{"step": step, "loss": 1.0, **{name: step * place for place, name in enumerate(ATTACKS)}} for step in range(9)]
    _write_lines(run, "pretrain/logs/train.jsonl", lines)
    _write_lines(run, "metrics.jsonl", [{"stage": name, "phase": name, "seconds": 1, "tasks": 1} for name in ATTACKS])
    run.json("evaluate/scores.json", {name: dict.fromkeys(ATTACKS, 0.5) for name in ATTACKS})
    run.json("evaluate/samples.json", {name: [{"prompt": other, "text": other} for other in ATTACKS] for name in ATTACKS})
    return folder


def _write_lines(run: RunBuilder, path: str, rows: list[dict[str, Any]]) -> None:
    run.storage.write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _attack_filter(folder: Path) -> None:
    """Puts attacks into columns, rules and rows of the filter stage."""
    names = {"words": attack(0), "symbol_ratio": attack(1), "language_score": "__proto__"}
    rules = [
        {"step": attack(at), "rule": name, "column": names["words"], "comparison": "<", "threshold": 10 + at}
        for at, name in enumerate(ATTACKS)
    ]
    for kind in ("report", "data"):
        for shard in sorted((folder / "filter" / kind).iterdir()):
            table = pq.read_table(shard)
            rows = table.to_pylist()
            for place, row in enumerate(rows):
                row |= {"language": attack(place), "source": f"{attack(place + 1)}.warc.gz", "url": f"http://{attack(place + 2)}.test/"}
                if kind == "report" and not row["kept"]:
                    row["failed"] = [attack(place), attack(place + 1)]
                if kind == "data":
                    row["text"] = " ".join(ATTACKS)
            schema = table.schema
            changed = pa.Table.from_pylist(rows, schema).rename_columns([names.get(name, name) for name in schema.names])
            pq.write_table(changed.replace_schema_metadata({b"corpusmill.rules": json.dumps(rules).encode()}), shard)


def _attack_classifier(folder: Path) -> None:
    """Puts attacks into a classifier, and into the warnings of the filter stage."""
    head = {"label": attack(0), "file": attack(1), "sha256": attack(2), "calibration": {"method": attack(3)}, "threshold": 0.5}
    described = {"format": 1, "name": attack(4), "form": "words", "window": None, "heads": [head], "card": {"licence": attack(5)}}
    storage = Storage(str(folder / "filter"))
    rows = list(Manifest(storage, read_only=True).rows())
    output = publish(storage, "classifiers/<b onclick=ran=7>.json", json.dumps(described).encode())
    rows.append(TaskRow("classifiers", "c", [], "c", "v", 0, 0, 0, 1, [output], warnings=list(ATTACKS)))
    (folder / "filter" / "manifest.jsonl").unlink()
    manifest = Manifest(storage)
    for row in rows:
        manifest.append(row)
    manifest.finish([row.task for row in rows])
