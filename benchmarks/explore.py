"""Measures the explorer's answers over HTTP in milliseconds, by kind of question, on a run of a million report rows.

    python benchmarks/large_run.py RUN LARGE && python benchmarks/explore.py LARGE [--with OTHER] [--stage filter] [--rounds 15]

`--with` names another run in the same folder: then the explorer serves that folder, and a comparison with OTHER is measured, too.

The server is a process of its own (`corpusmill explore`). Each question is asked with other values each time, so that no answer comes from
a cache. `CPU` is the server's processor time for one answer; the rest of the wall time is due to other processes.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

Question = tuple[str, dict[str, Any]]


class Server:
    """`corpusmill explore` of a run, or of a folder in which the questions are about the run `name`."""

    def __init__(self, path: str, name: str = ""):
        self.name = name
        command = [sys.executable, "-m", "corpusmill", "explore", path]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.client = httpx.Client(base_url=self.process.stdout.readline().strip(), timeout=60)
        self.opened = self.since()

    def since(self) -> float:
        return time.perf_counter() - self.started

    def ask(self, path: str, parameters: dict[str, Any]) -> Any:
        answer = self.client.get(f"/api/{path}?{urlencode({'run': self.name, **parameters}, doseq=True)}")
        answer.raise_for_status()
        return answer.json()

    def wait(self, stage: str) -> Any:
        """Waits until all is loaded; prints when the page opens, and when each stage is ready."""
        print(f"the page opens after {self.opened:.1f} s", flush=True)
        known: set[str] = set()
        while True:
            run = self.ask("run", {})
            for one in run["stages"]:
                if one["name"] not in known:
                    known.add(one["name"])
                    memory = self.memory()
                    print(f"{one['name']}: {one['rows']:,} rows can be asked for after {self.since():.1f} s, {memory} MB", flush=True)
            if run["loading"] is None:
                break
            time.sleep(0.2)
        before = -1.0
        while self.cpu() - before > 0.05:  # places of texts, and orders of rows
            before = self.cpu()
            time.sleep(2)
        print(
            f"all is ready after {self.since():.1f} s and {self.cpu():.1f} s of CPU, {self.memory()} MB (at most {self.memory('VmHWM')} MB)"
        )
        return next(one for one in run["stages"] if one["name"] == stage)

    def memory(self, what: str = "VmRSS") -> int:
        """Returns resident memory in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) // 1024

    def cpu(self) -> float:
        """Returns processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def questions(stage: dict[str, Any], server: Server) -> Iterator[tuple[str, Callable[[random.Random], Question]]]:
    """Yields the kinds of questions, each with a function that makes one."""
    name = stage["name"]
    numbers = [c for c in stage["columns"] if c["kind"] == "number" and c["low"] is not None and c["high"] > c["low"]]
    fired = sorted((rule for rule in stage["rules"] if rule["fired"]), key=lambda rule: -rule["fired"])
    sliders = [rule for rule in stage["rules"] if rule["slider"]]
    urls = [row["url"] for row in server.ask("documents", {"stage": name, "limit": 200})["rows"] if row["url"]]

    def documents(**parameters: Any) -> Question:
        return "documents", {"stage": name, **parameters}

    def ranges(draw: random.Random, count: int) -> dict[str, float]:
        chosen = draw.sample(numbers, min(count, len(numbers)))
        return {f"low.{c['name']}": c["low"] + draw.random() * 0.05 * (c["high"] - c["low"]) for c in chosen}

    def value(draw: random.Random, origin: str) -> str:
        return draw.choice(stage[origin])["value"] or ""

    def combined(draw: random.Random) -> dict[str, Any]:
        return {**ranges(draw, 3), "language": value(draw, "languages"), "url": draw.choice(urls)[7:14], "decision": "dropped"}

    def moves(draw: random.Random) -> dict[str, Any]:
        chosen = draw.sample(sliders, min(5, len(sliders)))
        return {f"set.{rule['rule']}": rule["low"] + draw.random() * (rule["high"] - rule["low"]) for rule in chosen}

    yield "decision", lambda draw: documents(decision=draw.choice(["kept", "dropped"]), offset=draw.randrange(1000))
    if fired:
        yield "one rule", lambda draw: documents(rule=draw.choice(fired)["rule"])
        yield "one rule alone", lambda draw: documents(rule=draw.choice(fired)["rule"], alone=True)
        yield "two rules", lambda draw: documents(rule=[rule["rule"] for rule in draw.sample(fired, 2)])
    yield "language", lambda draw: documents(language=value(draw, "languages"))
    yield "crawl file", lambda draw: documents(source=value(draw, "sources"))
    yield "host", lambda draw: documents(host=value(draw, "hosts"))
    yield "part of the URL", lambda draw: documents(url=draw.choice(urls)[-draw.randrange(4, 20) :])
    yield "one range", lambda draw: documents(**ranges(draw, 1))
    yield "five ranges", lambda draw: documents(**ranges(draw, 5))
    yield "all of these", lambda draw: documents(**combined(draw))
    yield "all, counted", lambda draw: ("summary", {"stage": name, **combined(draw)})
    yield "one range, counted", lambda draw: ("summary", {"stage": name, **ranges(draw, 1)})
    yield "by a column", lambda draw: documents(order=draw.choice(numbers)["name"], descending=draw.random() < 0.5, **ranges(draw, 1))
    yield "by URL", lambda draw: documents(order="url", **ranges(draw, 1))
    yield "by a column, deep", lambda draw: documents(order=draw.choice(numbers)["name"], offset=draw.randrange(stage["rows"]))
    yield "in order, deep", lambda draw: documents(offset=draw.randrange(stage["rows"]))
    yield "histogram of a filter", lambda draw: ("histogram", {"stage": name, "column": draw.choice(numbers)["name"], **ranges(draw, 1)})
    if len(sliders) >= 5:
        yield "five thresholds", lambda draw: ("thresholds", {"stage": name, **moves(draw)})
        yield "what they change", lambda draw: ("changed", {"stage": name, "which": draw.choice(["gained", "lost"]), **moves(draw)})
    for kind in ("random", "near", "uncertain", "disagree"):  # of a run with labels
        rules = sliders if kind == "near" else fired
        if kind in ("random", "uncertain") or len(rules) >= 2:
            yield (
                f"to label: {kind}",
                lambda draw, kind=kind, rules=rules: (
                    "queue",
                    {
                        "stage": name,
                        "kind": kind,
                        "column": draw.choice(numbers)["name"],
                        "rule": [rule["rule"] for rule in draw.sample(rules, 2)],
                    },
                ),
            )
    yield "agreement", lambda draw: ("agreement", {"stage": name, "label": "bad", "sample": "all"})
    yield "a document", lambda draw: ("document", {"key": f"{name}/{draw.randrange(stage['rows'])}"})
    yield "text: first answer", lambda draw: documents(text=draw.choice(["the quick", "nowhere to be found", "kernel"]), **ranges(draw, 1))
    yield "run", lambda draw: ("run", {})
    yield "list of runs", lambda draw: ("runs", {})
    yield "status", lambda draw: ("status", {})


def comparisons(server: Server, other: str) -> Iterator[tuple[str, Callable[[random.Random], Question]]]:
    """Yields the kinds of questions about two runs, after the documents are matched."""
    pair = {"a": server.name, "b": other}
    began = time.perf_counter()
    found = server.ask("compare", pair)
    print(f"the documents of both runs are matched in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    columns = server.ask("compare_columns", pair)["columns"]
    print(f"all their {len(columns)} values are compared in {time.perf_counter() - began:.1f} s", flush=True)
    sides = [side for side in ("a", "b") if found["documents"].get(f"only_{side}", {}).get("documents")]
    rules = [(side, rule) for rule in found["rules"] for side, other in ("ab", "ba") if rule["other_keeps"][other]]

    def documents(draw: random.Random) -> Question:
        return "compare_documents", {**pair, "kept_by": draw.choice(sides), "offset": draw.randrange(100)}

    def by_rule(draw: random.Random) -> Question:
        side, rule = draw.choice(rules)
        return "compare_documents", {
            **pair,
            "kept_by": side,
            "stage": rule["stage"],
            "dropped_by": rule["rule"],
            "offset": draw.randrange(100),
        }

    def histogram(draw: random.Random) -> Question:
        column = columns.pop()
        return "compare_histogram", {**pair, "stage": column["stage"], "column": column["column"]}

    yield "compare: summary", lambda draw: ("compare", pair)
    if sides:
        yield "compare: documents", documents
        yield "compare: by rule", by_rule
    yield "compare: a histogram", histogram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--with", dest="other", help="another run in the same folder, by its name")
    parser.add_argument("--stage", default="filter")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="a JSON object a line in place of the table")
    arguments = parser.parse_args()
    folder, _, name = arguments.run.rstrip("/").rpartition("/")
    server = Server(folder or ".", name) if arguments.other else Server(arguments.run)
    try:
        stage = server.wait(arguments.stage)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{'question':24}{'p50':>8}{'p95':>8}{'max':>8}{'CPU':>8}  ms")
        asked = questions(stage, server)
        for name, question in chain(asked, comparisons(server, arguments.other)) if arguments.other else asked:
            draw, times, cpu = random.Random(1), [], server.cpu()
            for _ in range(arguments.rounds):
                path, parameters = question(draw)
                began = time.perf_counter()
                server.ask(path, parameters)
                times.append(1000 * (time.perf_counter() - began))
            used, times = 1000 * (server.cpu() - cpu) / len(times), sorted(times)
            figures = {"p50": times[len(times) // 2], "p95": times[int(0.95 * (len(times) - 1))], "max": times[-1], "cpu": used}
            if arguments.json:
                print(json.dumps({"question": name, **figures}))
            else:
                print(f"{name:24}" + "".join(f"{figure:8.0f}" for figure in figures.values()), flush=True)
        search(server, stage["name"])
    finally:
        server.process.terminate()


def search(server: Server, stage: str) -> None:
    """Prints the time of a search through all texts."""
    began, cursor, answers = time.perf_counter(), None, 0
    while True:
        parameters = {"stage": stage, "text": "not in any of these texts", **({"cursor": cursor} if cursor is not None else {})}
        found = server.ask("documents", parameters)["search"]
        answers, cursor = answers + 1, found["cursor"]
        if cursor is None:
            break
    seconds = time.perf_counter() - began
    print(f"\nall texts of {found['of']:,} documents are searched in {seconds:.1f} s and {answers} answers")


if __name__ == "__main__":
    main()
