"""Tests who may ask the explorer, and what a browser may do with its answers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from asking import PORT, client_for, client_of
from starlette.testclient import TestClient

from corpusmill.report.explore import parameters, server
from corpusmill.report.explore.console import Console
from corpusmill.report.explore.server import POLICY


@pytest.fixture(scope="module")
def client(run_folder: Path) -> TestClient:
    return client_of(run_folder, "filter")


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_names_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/api/run", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [f"evil.test:{PORT}", "127.0.0.1", "localhost:1", f"localhost.evil.test:{PORT}", "", f"x@localhost:{PORT}"],
)
def test_a_rebound_name_gets_nothing(client: TestClient, host: str) -> None:
    for path in ("/", "/api/run", "/static/main.js"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 421 and set(answer.json()) == {"detail"}


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_nothing_can_be_changed(client: TestClient, method: str) -> None:
    for path in ("/", "/api/run", "/nothing"):
        answer = client.request(method, path)
        assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),  # another port of this machine
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://localhost:{PORT + 1}"}, 403),
        ({"origin": f"http://127.0.0.1:{PORT}", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_pages_of_other_sites(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/run", headers=headers).status_code == status


def test_a_link_to_the_page_may_be_followed_from_anywhere(client: TestClient) -> None:
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=followed).status_code == 200
    assert client.get("/", headers={**followed, "sec-fetch-dest": "iframe"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/documents", "/static/plot.js", "/nothing"])
def test_headers_of_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == POLICY and "'unsafe" not in POLICY and "*" not in POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] in ("no-store", "no-cache") and (headers["cache-control"] == "no-store" or not path.startswith("/api"))
    assert not {name for name in headers if name.startswith("access-control")} and "server" not in headers


@pytest.mark.parametrize(
    "path",
    ["/docs", "/openapi.json", "/api/nothing", "/static/", "/static/../app.py", "/static/%2e%2e%2fapp.py", "/static/index.html%00",
     "/static//etc/passwd"],
)  # fmt: skip
def test_there_is_nothing_else(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (404, 307) and b"FastAPI" not in answer.content


def test_an_endless_request(client: TestClient) -> None:
    assert client.get("/api/documents?stage=filter&url=" + "x" * 20_000).status_code == 414
    assert client.get("/api/documents?stage=filter&url=" + "x" * 501).status_code == 422
    assert client.get("/api/documents?stage=filter" + "&rule=short" * 101).status_code == 422


class Noted(parameters.Asked):
    words: str


@pytest.fixture
def console(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """Yields a console with --write over a copy of the run, whose only action returns the number of its words."""
    monkeypatch.setitem(server.ACTIONS, "note", (Noted, lambda _, body: {"words": len(body.words.split())}))
    shutil.copytree(run_folder, tmp_path / "run")
    console = Console(str(tmp_path / "run"), write=True)
    yield console
    console.stop()


def act(console: Console, content: bytes = b'{"words": "two words"}', path: str = "/api/note", **headers: str | None) -> httpx.Response:
    """Sends an action as the page does. `headers`: those that differ; None leaves one out."""
    own = {"x-corpusmill-token": console.token, "origin": f"http://127.0.0.1:{PORT}", "content-type": "application/json"}
    sent = {name: value for name, value in {**own, **{n.replace("_", "-"): v for n, v in headers.items()}}.items() if value is not None}
    return client_for(console).post(path, content=content, headers=sent)


def test_an_action_is_done_and_stands_in_the_log(console: Console) -> None:
    answer = act(console)
    assert (answer.status_code, answer.json()) == (200, {"words": 2})
    line = json.loads((Path(console.path) / "log.jsonl").read_text().splitlines()[-1])
    assert (line["event"], line["message"], line["fields"]) == ("action", "explore: note", {"words": "two words"})
    assert client_for(console).get("/api/console").json() == {"path": console.path, "one": True, "write": True}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_corpusmill_token": None}, 403),
        ({"x_corpusmill_token": "a guess"}, 403),
        ({"origin": None}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"host": "evil.test"}, 421),
        ({"content_type": "text/plain"}, 415),
        ({"content_length": str(9 << 20)}, 413),
    ],
)
def test_an_action_without_proof_changes_nothing(console: Console, headers: dict[str, str | None], status: int) -> None:
    before = {path: path.read_bytes() for path in Path(console.path).rglob("*") if path.is_file()}
    assert act(console, **headers).status_code == status
    assert {path: path.read_bytes() for path in Path(console.path).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"words", "invalid JSON"),
        (b"{}", "The parameter 'words' is missing."),
        (b'{"words": "", "more": 1}', "There is no parameter 'more'."),
        (b'{"words": "", "run": "../run"}', "There is no run '../run' here."),
    ],
)
def test_a_bad_action_is_a_sentence(console: Console, content: bytes, said: str) -> None:
    answer = act(console, content)
    assert answer.status_code in (404, 422) and said in answer.json()["detail"]
    assert not (Path(console.path) / "log.jsonl").exists() or '"action"' not in (Path(console.path) / "log.jsonl").read_text()


def test_one_action_at_a_time(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.report.explore.server.TURN", 0.1)
    with console.acting:
        answer = act(console)
    assert answer.status_code == 409 and "Another action is at work" in answer.json()["detail"]
    assert act(console).status_code == 200


def test_no_get_is_an_action_and_no_action_is_there_without_write(console: Console, client: TestClient) -> None:
    answer = client_for(console).get("/api/note?words=x")
    assert answer.status_code == 405 and answer.json()["detail"] == "An action is a POST, and everything else is a GET."
    assert act(console, path="/api/documents").status_code == 405
    assert client.post("/api/note", json={"words": "x"}).status_code == 405
    assert client.get("/api/console").json()["write"] is False
