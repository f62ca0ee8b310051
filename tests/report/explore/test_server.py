"""Tests `corpusmill explore` as a process, and with unusual runs."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asking import client_for, client_of, rows_of
from built_run import RULES, RunBuilder, documents, write_run

from corpusmill.report.explore import console as console_module
from corpusmill.report.explore.console import Console


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yields a process of the command, and the line that it prints."""
    command = [sys.executable, "-m", "corpusmill", "explore", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_unfinished_requests_are_closed(tmp_path: Path) -> None:
    """One sends half a body. More than the server takes send half a header, new ones and one that was kept after its first request."""
    write_run(tmp_path / "run")
    with started(str(tmp_path / "run"), "--write") as (process, line):
        line, _, token = line.partition("#token=")
        port = int(line.rstrip("/").rpartition(":")[2])
        header = (
            f"POST /api/stop HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {line.rstrip('/')}\r\nX-Corpusmill-Token: {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=60) as action:  # alone: of too many connections each gets a 503 at once
            action.sendall(header.encode() + b"{")
            assert action.recv(1 << 16) == b""
        sockets = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(80)]
        sockets[0].sendall(f"GET /style.css HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert sockets[0].recv(100).startswith(b"HTTP/1.1 ")
        for each in sockets:
            each.sendall(b"GET / HTTP/1.1\r\nHost:")
        for each in sockets:
            with suppress(ConnectionResetError):  # closed with bytes that the server never read
                while each.recv(1 << 16):  # until the server closes it; a timeout is an error
                    pass
            each.close()
        assert httpx.get(line).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""


def bytes_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_command(tmp_path: Path, corpusmill) -> None:
    """Tests the printed address, answers on the loopback address alone, a port in use, Ctrl-C, and that nothing is written in the run."""
    write_run(tmp_path / "run")
    before = bytes_of(tmp_path)
    with started(str(tmp_path / "run")) as (process, line):
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None
        port = int(found[1])
        with httpx.Client(base_url=line) as client:
            deadline = time.monotonic() + 60
            while client.get("/api/run").json()["loading"] is not None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            answer = client.get("/api/documents", params={"stage": "filter", "decision": "dropped"})
            assert answer.json()["total"] == 11 and "server" not in answer.headers
            assert client.get("/api/documents", params={"stage": "filter", "text": "word14x2"}).json()["total"] == 1
            assert [stage["name"] for stage in client.get("/api/status").json()["stages"]][:2] == ["ingest", "filter"]
            assert "Explore" in client.get("/").text
            assert client.get("/", headers={"host": f"evil.test:{port}"}).status_code == 421
        addresses = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), port)} - {"127.0.0.1", "::1"}
        for address in addresses:
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=2).close()
        code, _, error = corpusmill("explore", tmp_path / "run", "--port", port)
        assert code == 2 and error.startswith(f"corpusmill: port {port} of 127.0.0.1 can't be used")
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out, error) == (0, "", "")
    assert bytes_of(tmp_path) == before


def test_a_run_half_done(tmp_path: Path) -> None:
    write_run(tmp_path, ("ingest", "filter"))
    lines = (tmp_path / "filter/manifest.jsonl").read_text().splitlines()
    (tmp_path / "filter/manifest.jsonl").write_text(lines[0] + "\n" + lines[1][:30])
    client = client_of(tmp_path)
    stages = {stage["name"]: stage for stage in client.get("/api/run").json()["stages"]}
    assert set(stages) == {"ingest", "filter"}
    assert (stages["filter"]["status"], stages["filter"]["rows"]) == ("unfinished", 28)
    answer = client.get("/api/thresholds", params={"stage": "filter", "set.short": 5}).json()
    assert answer["command"].startswith("corpusmill run ") and "not finished" in answer["note"]


def test_a_damaged_shard_is_left_out_and_said(tmp_path: Path) -> None:
    write_run(tmp_path)
    rows = rows_of(tmp_path, "filter")
    damaged = tmp_path / "filter/report/part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    (tmp_path / "ingest/data/part-00001.parquet").write_bytes(b"PAR1 nothing PAR1")
    client = client_of(tmp_path)
    run = client.get("/api/run").json()
    assert any("filter/report/part-00000.parquet" in warning for warning in run["warnings"])
    answer = client.get("/api/documents", params={"stage": "filter", "limit": 200}).json()
    assert [row["id"] for row in answer["rows"]] == [row["id"] for row in rows[28:]]
    found = client.get("/api/document", params={"key": "filter/5"}).json()
    assert found["text"] is None and found["id"] == rows[33]["id"]


def test_one_shard_of_another_version(tmp_path: Path) -> None:
    """A column that the shard lacks is missing in its rows; rows without a decision are left out."""
    write_run(tmp_path, ("ingest", "filter"))
    rows = rows_of(tmp_path, "filter")
    path = tmp_path / "filter/report/part-00001.parquet"
    table = pq.read_table(path).drop_columns(["words", "language"])
    failed = pa.array([None, *table["failed"].to_pylist()[1:]], pa.list_(pa.string()))
    pq.write_table(table.set_column(table.schema.get_field_index("failed"), "failed", failed), path)
    client = client_of(tmp_path)
    answer = client.get("/api/documents", params={"stage": "filter", "order": "words", "limit": 200}).json()
    wanted = sorted(rows[:28], key=lambda row: row["words"]) + rows[29:]
    assert [row["id"] for row in answer["rows"]] == [row["id"] for row in wanted]
    run = client.get("/api/run").json()
    assert any("1 rows of its report have no id or decision" in warning for warning in run["warnings"])
    described = next(stage for stage in run["stages"] if stage["name"] == "filter")  # the others may still be loading
    columns = {column["name"]: column for column in described["columns"]}
    assert columns["words"]["missing"] == 27
    assert client.get("/api/summary?stage=filter&language=").json()["total"] == 27


@pytest.mark.long
def test_more_than_fits_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exceeds the memory goes to the console's own folder, and the answers stay the same."""
    count = 300_000
    draw = np.random.default_rng(0)
    values = {f"value{place}": draw.random(count) for place in range(30)}
    ids = [f"{n:032x}" for n in draw.permutation(count).tolist()]
    kept = values["value0"] > 0.5
    failed = pa.array([[] if each else ["low"] for each in kept.tolist()], pa.list_(pa.string()))
    lengths = {"chars_in": pa.array(np.ones(count, np.int64)), "chars_out": pa.array(kept.astype(np.int64))}
    rows = {"id": ids, "url": [f"http://{id_}.test/" for id_ in ids], "kept": kept, "failed": failed, **lengths, **values}
    rules = [{"step": "s", "rule": "low", "column": "value0", "comparison": "<=", "threshold": 0.5}]
    table = pa.table(rows).replace_schema_metadata({b"corpusmill.rules": json.dumps(rules).encode()})
    RunBuilder(tmp_path).stage("filter", [{"data/part-00000.parquet": documents([], []), "report/part-00000.parquet": table}])
    monkeypatch.setattr(console_module, "LEAST_MEMORY", 64 << 20)
    monkeypatch.setattr(console_module, "available_memory", lambda: 0)
    console = Console(str(tmp_path))
    console.explorer("").loader.join()
    client = client_for(console)
    spilled = sum(path.stat().st_size for path in Path(console.scratch).rglob("*") if path.is_file())
    assert spilled > 10 << 20 and client.get("/api/run").json()["warnings"] == []
    wanted = kept & (values["value7"] >= 0.9)
    asked = {"stage": "filter", "decision": "kept", "low.value7": 0.9, "order": "value3", "limit": 3}
    answer = client.get("/api/documents", params=asked).json()
    assert answer["total"] == wanted.sum()
    assert [row["values"]["value3"] for row in answer["rows"]] == sorted(values["value3"][wanted])[:3]
    assert (
        client.get("/api/thresholds", params={"stage": "filter", "set.low": 0.1}).json()["after"]["kept"] == (values["value0"] > 0.1).sum()
    )
    folder = Path(console.scratch)
    console.stop()
    assert not folder.exists()


def test_zero_rows(tmp_path: Path) -> None:
    fields = [pa.field("words", pa.int64()), pa.field("score", pa.float64()), pa.field("language", pa.string())]
    RunBuilder(tmp_path).decide("filter", [[]], fields, rules=RULES)
    client = client_of(tmp_path)
    for path in (
        "documents?low.words=1&url=x&rule=short", "documents?order=words", "documents?text=x", "summary?", "histogram?column=score",
        "thresholds?set.short=1", "changed?which=lost&set.short=1",
    ):  # fmt: skip
        answer = client.get(f"/api/{path}&stage=filter")
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json().get("total", 0) == 0
    assert client.get("/api/document?key=filter/0").status_code == 404


def test_hostile_names_and_ten_thousand_rules(tmp_path: Path) -> None:
    """Rules and columns may have any name; there are more rules than any integer has bits."""
    hostile = ['"; DROP TABLE report_filter; --', "c0", "number", "id\u202e", "a,b:k", "", "low.words", "x" * 900]
    names = hostile + [f"rule {number}" for number in range(10_000 - len(hostile))]
    rules = [{"step": "s", "rule": name, "column": hostile[0], "comparison": ">", "threshold": n} for n, name in enumerate(names)]
    values = [0, 1, 3, 12, 700, 10_000]
    rows = [
        {"id": f"{n:032x}", "url": None, "failed": names[:value], "source": "s", "text": "t", hostile[0]: value, "number": n / 2,
         "c0": f"{n}", "id\u202e": None}
        for n, value in enumerate(values)
    ]  # fmt: skip
    kinds = {hostile[0]: pa.int64(), "number": pa.float64(), "c0": pa.string(), "id\u202e": pa.int8()}
    RunBuilder(tmp_path).decide("filter", [rows], [pa.field(*column) for column in kinds.items()], rules=rules)
    client = client_of(tmp_path)
    summary = client.get("/api/summary?stage=filter").json()
    assert [rule["rule"] for rule in summary["rules"]] == names
    assert [rule["fired"] for rule in summary["rules"]] == [sum(value > n for value in values) for n in range(10_000)]
    assert [rule["rule"] for rule in summary["rules"] if rule["alone"]] == [hostile[0]]
    for n, name in enumerate(hostile):
        answer = client.get("/api/documents", params={"stage": "filter", "rule": name}).json()
        assert [row["key"] for row in answer["rows"]] == [f"filter/{row}" for row, value in enumerate(values) if value > n]
    ranged = {"stage": "filter", f"low.{hostile[0]}": 3, "high.number": 2, "order": hostile[0], "descending": True}
    answer = client.get("/api/documents", params=ranged).json()
    assert [row["values"][hostile[0]] for row in answer["rows"]] == [700, 12, 3]
    moved = client.get("/api/thresholds", params={"stage": "filter", f"set.{hostile[0]}": 1e9}).json()
    assert moved["after"]["kept"] == 2 and {rule["fired"] for rule in moved["rules"][:1]} == {0}
    assert [row["key"] for row in client.get("/api/documents", params={"stage": "filter", "order": "id\u202e"}).json()["rows"]] == [
        f"filter/{row}" for row in range(6)
    ]


def test_a_query_has_its_time(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpusmill.report.explore import selection, table

    client = client_of(run_folder, "filter")
    monkeypatch.setattr(table, "LIMIT", 0.1)
    slow = "(SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7) >= 0"
    monkeypatch.setattr(selection, "_conditions", lambda *_: selection.Conditions([slow], []))
    answer = client.get("/api/documents?stage=filter&low.words=1")
    assert answer.status_code == 503 and answer.json()["detail"] == "That took too long."
