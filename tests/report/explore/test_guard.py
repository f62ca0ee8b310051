"""Tests who may ask the explorer, and what a browser may do with its answers."""

from pathlib import Path

import pytest
from asking import PORT, client_of
from starlette.testclient import TestClient

from corpusmill.report.explore.server import POLICY, LoopbackGuard


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


def test_head(client: TestClient) -> None:
    for path in ("/", "/api/run", "/static/plotly.js"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


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


@pytest.mark.parametrize("path", ["/", "/api/documents", "/static/plotly.js", "/nothing"])
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


def test_port_80_has_no_port() -> None:
    assert "localhost" in LoopbackGuard(None, 80).hosts and "localhost" not in LoopbackGuard(None, 8080).hosts
