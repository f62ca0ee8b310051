"""Tests labels in the explorer: giving them, queues, agreement with rules, and forks; and what is refused."""

import json
import random
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
from asking import PORT, client_for, rows_of
from starlette.testclient import TestClient

import corpusmill
from corpusmill.filters.labels import LabelFile, hash_of
from corpusmill.pipeline.storage import Storage
from corpusmill.report.explore.console import Console

ORIGIN = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def run(tmp_path: Path, builder: Callable[[Path], Any]) -> Path:
    builder(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def client(run: Path) -> TestClient:
    return served(run, "anna")


def served(run: Path | str, who: str) -> TestClient:
    console = Console(str(run), write=True, who=who)
    console.explorer("").loader.join()
    client = client_for(console)
    client.headers.update({"x-corpusmill-token": console.token or "", "origin": ORIGIN})
    return client


def give(client: TestClient, place: int, label: str | None) -> Any:
    return client.post("/api/label", json={"key": f"filter/{place}", "label": label})


def get(client: TestClient, path: str, **parameters: Any) -> Any:
    return client.get(f"/api/{path}", params={"stage": "filter", **parameters}).json()


def test_a_label_is_given_changed_and_taken_away(run: Path, client: TestClient) -> None:
    other, rows = served(run, "bert"), rows_of(run, "filter")
    assert give(client, 0, "bad").json()["document"][0]["label"] == "bad"
    give(client, 0, "good")
    assert {(one["who"], one["label"]) for one in give(other, 0, "bad").json()["document"]} == {("anna", "good"), ("bert", "bad")}
    found = LabelFile(Storage(str(run))).read().of(rows[0]["id"])
    text = client.get("/api/document", params={"key": "filter/0"}).json()["text"]
    assert {one.text_sha256 for one in found} == {hash_of(text)}
    assert [one["who"] for one in get(client, "labels", key="filter/0")["document"]] == ["anna", "bert"]
    assert [one["who"] for one in give(client, 0, None).json()["document"]] == ["bert"]
    assert get(client, "labels")["counts"] == [{"label": "bad", "documents": 1}]


def test_own_names(run: Path, client: TestClient) -> None:
    names = ["good", "bad", "<img src=x onerror=alert(1)>"]
    assert client.post("/api/names", json={"names": names}).json() == {"names": names}
    assert give(client, 1, names[2]).status_code == 200
    client.post("/api/names", json={"names": ["toxic"]})
    found = get(client, "labels")
    assert found["names"] == ["toxic"] and found["counts"] == [{"label": names[2], "documents": 1}]


def test_what_is_refused(run: Path, client: TestClient) -> None:
    give(client, 0, "bad")
    before = (run / "labels.parquet").read_bytes()
    for path, body, sentence in (
        ("label", {"key": "filter/99999", "label": "bad"}, "There is no document"),
        ("label", {"key": "filter/0", "label": "nameless"}, "There is no label 'nameless' (there are good, bad)"),
        ("label", {"key": "filter/0", "label": "x" * 10_000}, "at most 1000 characters"),
        ("label", {"key": "filter/0", "label": "bad", "who": "bert"}, "There is no parameter 'who'"),
        ("names", {"names": ["a\u202e"]}, "no control characters"),
        ("names", {"names": ["x" * 10_000]}, "1 to 64 characters"),
        ("names", {"names": []}, "1 to 9 names"),
        ("fork", {"set_": {"nothing": 1}}, "has no rule 'nothing'"),
        ("fork", {"set_": {}}, "set"),
    ):
        answer = client.post(f"/api/{path}", json=body)
        assert answer.status_code in (404, 422) and sentence in answer.json()["detail"], path
    assert client.get("/api/label", params={"key": "filter/0", "label": "good"}).status_code == 405
    client.headers["x-corpusmill-token"] = "another"
    assert give(client, 0, "good").status_code == 403
    assert (run / "labels.parquet").read_bytes() == before
    for parameters, sentence in (
        ({"kind": "near"}, "Say which rule"),
        ({"kind": "near", "rule": "language"}, None),
        ({"kind": "disagree", "rule": "short"}, "two rules"),
        ({"kind": "uncertain", "column": "url"}, "no column of numbers"),
    ):
        answer = client.get("/api/queue", params={"stage": "filter", **parameters})
        assert answer.status_code == (422 if sentence else 200) and (sentence or "") in answer.text
    assert "no label 'x'" in get(client, "agreement", label="x")["detail"]


def test_a_damaged_file_is_named_and_kept(run: Path, client: TestClient) -> None:
    (run / "labels.parquet").write_bytes(b"damaged")
    assert "labels.parquet: not a readable Parquet file" in give(client, 0, "bad").json()["detail"]
    assert (run / "labels.parquet").read_bytes() == b"damaged"


def test_queues(run: Path, client: TestClient) -> None:
    rows = rows_of(run, "filter")
    places = {row["id"]: place for place, row in enumerate(rows)}

    def asked(**parameters: Any) -> list[int]:
        return [places[row["id"]] for row in get(client, "queue", limit=200, **parameters)["rows"]]

    order = asked(kind="random")
    assert sorted(order) == list(range(len(rows))) != order == asked(kind="random")
    words = np.array([row["words"] for row in rows], float)
    assert asked(kind="near", rule="short") == np.argsort(np.abs(words - 20), kind="stable").tolist()[:200]
    scores = np.array([row["language_score"] for row in rows], float)
    known = np.flatnonzero(np.isfinite(scores))
    uncertain = known[np.argsort(np.abs(scores[known] - 0.65), kind="stable")]
    assert asked(kind="uncertain", column="language_score") == uncertain.tolist()
    differ = {place for place, row in enumerate(rows) if ("short" in row["failed"]) != ("symbols" in row["failed"])}
    assert set(asked(kind="disagree", rule=["short", "symbols"])) == differ
    give(client, order[0], "bad")
    assert asked(kind="random") == order[1:]


def test_agreement_with_the_random_sample_and_with_all_labels(run: Path, client: TestClient) -> None:
    rows = rows_of(run, "filter")
    places = {row["id"]: place for place, row in enumerate(rows)}
    order = [places[row["id"]] for row in get(client, "queue", kind="random", limit=200)["rows"]]
    labelled = [*order[:6], *order[8:12]]  # the first six are a random sample; the others were chosen
    for place in labelled:
        give(client, place, "bad" if rows[place]["words"] < 35 else "good")
    for sample, used in (("random", labelled[:6]), ("all", labelled)):
        found = get(client, "agreement", label="bad", sample=sample)
        assert (found["documents"], found["random"], found["labelled"]) == (len(used), 6, 10)
        bad = np.array([rows[place]["words"] < 35 for place in used])
        (short,) = (rule for rule in found["rules"] if rule["rule"] == "short")
        drops = np.array([rows[place]["words"] < 20 for place in used])
        assert short["agreed"]["hits"] == (drops == bad).sum()
        assert (short["recall"] or {"hits": 0})["hits"] == (drops & bad).sum()
        assert short["best"]["agreed"]["hits"] == len(used)  # a threshold that agrees with all is found
        assert ((np.array([rows[place]["words"] for place in used]) < short["best"]["threshold"]) == bad).all()
    other = served(run, "bert")
    give(other, labelled[0], "good" if rows[labelled[0]]["words"] < 35 else "bad")
    assert get(client, "agreement", label="bad")["tied"] == 1


def filtered(folder: Path, run: str) -> None:
    """Runs a recipe up to its filter: 80 documents of 20 texts, of which every other one is short."""
    texts = []
    for group in range(20):  # every other one has fewer than 50 words
        letters = random.Random(group)
        words = ["".join(letters.choices(ascii_lowercase, k=5)) for _ in range((10, 60)[group % 2])]
        texts.append(f"The miller of the river ground the corn that they have with the sun. {' '.join(words)}")
    rows = [{"url": f"http://a.test/{n}", "text": texts[n % 20]} for n in range(80)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = "ingest: {}\nfilter: {word_rule: words, steps: [gopher_quality: {}]}\ndedup: {}\ntokenizer: {vocab_size: 512}\ntokens: {}\n"
    (folder / "recipe.yaml").write_text(recipe)
    corpusmill.run(folder / "recipe.yaml", folder / "a.jsonl", run, to="filter", engine="inline")


@pytest.mark.long
def test_a_fork_from_the_page_goes_on_to_its_end(tmp_path: Path) -> None:
    """It is named, stops on an alarm, says so, goes on in spite of it, is stopped, finished and compared with its parent."""
    run = tmp_path / "run"
    filtered(tmp_path, str(run))
    client = served(run, "anna")
    fork = {"set_": {"gopher_short_doc": 20}}
    for name in ("../out", "a/b", "-x", ".x", "a b", "x" * 81):
        assert client.post("/api/fork", json={**fork, "name": name}).status_code == 422
    command = client.get("/api/thresholds", params={"stage": "filter", "set.gopher_short_doc": 20}).json()["fork"]
    assert (command["name"], command["command"]) == ("run-2", f"corpusmill fork {run} --set filter.thresholds.gopher_short_doc=20")
    assert shlex.split(f"{command['before']}mine{command['after']}")[2:4] == [str(run), f"{tmp_path}/mine"]
    assert client.post("/api/fork", json={**fork, "name": "mine"}).json()["state"] == "working"
    assert "is at work" in client.post("/api/fork", json=fork).json()["detail"]
    assert (job := ended(client))["state"] == "done" and (job["run"], job["folder"]) == ("mine", f"{tmp_path}/mine")
    assert (
        '"event":"action"' in (run / "log.jsonl").read_text() and client.get("/api/run", params={"run": "mine"}).json()["parent"] == "run"
    )

    status = client.get("/api/status", params={"run": "mine"}).json()
    assert (status["left"], status["to"], status["alarm"]) == (["dedup", "tokenizer", "tokens"], "tokens", False)
    on = {"run": "mine", "to": "tokens"}
    for body in ({**on, "to": "pretrain"}, {**on, "to": "ingest"}, {**on, "run": "other"}):
        assert client.post("/api/go_on", json=body).status_code in (404, 409)
    assert client.post("/api/go_on", json=on).json()["state"] == "working"
    assert ended(client)["state"] == "failed"
    status = client.get("/api/status", params={"run": "mine"}).json()
    assert "dedup stops before removing anything" in status["sentence"] and status["alarm"]
    assert client.post("/api/go_on", json={**on, "alarm": True}).json()["state"] == "working"
    assert client.post("/api/stop", json={"run": "mine"}).status_code == 200
    assert ended(client)["state"] == "stopped"
    client.post("/api/go_on", json={**on, "alarm": True})
    assert ended(client)["state"] == "done", client.get("/api/status", params={"run": "mine"}).json()["sentence"]
    assert client.get("/api/status", params={"run": "mine"}).json()["left"] == []
    found = client.get("/api/compare", params={"a": "run", "b": "mine"}).json()["documents"]
    assert "only_a" not in found and found["only_b"]["documents"] > 0

    again = served(tmp_path / "mine", "anna")  # a fork of the fork has the answer to its alarm
    assert again.post("/api/fork", json={"set_": {"gopher_short_doc": 21}}).json()["state"] == "working"
    assert ended(again)["state"] == "done"
    assert json.loads((tmp_path / "mine-2/run.json").read_text())["recipe"]["dedup"]["alarm"] == "warn"
    (tmp_path / "mine/run.json").write_text("no JSON")
    again.post("/api/fork", json={"set_": {"gopher_short_doc": 6}})
    assert (job := ended(again))["state"] == "failed" and job["message"].startswith(f"{tmp_path}/mine/run.json: ")


def ended(client: TestClient) -> dict[str, Any]:
    """Waits until the command that the page has started has ended, and returns its state."""
    while (job := client.get("/api/job").json())["state"] == "working":
        time.sleep(0.1)
    return job
