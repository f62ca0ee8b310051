"""Tests the server of OpenAI's protocol: answers are those of `generate`, and bad requests get a sentence."""

from typing import Any

import pytest
from speaking import speaking_folder
from starlette.testclient import TestClient

from corpusmill.cli.serve import LARGEST, make_app
from corpusmill.train.generate import Sampling, TextGenerator, load_text_generator

MESSAGES = [{"role": "user", "content": "hello 1"}]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return load_text_generator(speaking_folder(tmp_path_factory.mktemp("serve") / "model"), "cpu")


@pytest.fixture
def client(generator: TextGenerator) -> TestClient:
    return TestClient(make_app(generator, "little"), base_url="http://127.0.0.1:8000")


def test_answers_are_those_of_generate(client: TestClient, generator: TextGenerator) -> None:
    asked = {"model": "little", "max_tokens": 8, "temperature": 0.5, "seed": 3, "unknown_field": 1}
    sampling = Sampling(0.5, top_k=0, seed=3)
    for path, body, chat in (("completions", {"prompt": "hello"}, False), ("chat/completions", {"messages": MESSAGES}, True)):
        answer = client.post(f"/v1/{path}", json={**asked, **body}).json()
        (draft,) = generator.complete(["hello 1" if chat else "hello"], max_tokens=8, sampling=sampling, chat=chat)
        choice = answer["choices"][0]
        assert (choice["message"]["content"] if chat else choice["text"]) == draft.text
        assert answer["usage"]["completion_tokens"] == len(draft.tokens) and choice["finish_reason"] in ("stop", "length")
    assert client.get("/v1/models").json()["data"][0]["id"] == "little"


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"model": "other"}, 404, "there is no model 'other'; this one is 'little'"),
        ({"max_tokens": 90_000}, 400, "the context has"),
        ({"max_tokens": "8"}, 400, "max_tokens: Input should be a valid integer"),
        ({"temperature": 3}, 400, "temperature:"),
        ({"stream": True}, 400, "stream is not known here"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "each has a role and a content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "not Unicode"),
        ({"messages": None}, 400, "each has a role and a content"),
    ],
)
def test_a_bad_request_gets_a_sentence(client: TestClient, change: dict[str, Any], status: int, sentence: str) -> None:
    import json

    content = json.dumps({"model": "little", "messages": MESSAGES, **change})
    answer = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and sentence in answer.json()["error"]["message"]


def test_pages_of_other_sites_and_large_bodies_are_refused(client: TestClient) -> None:
    assert client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
    large = client.post("/v1/completions", content=b" " * (LARGEST + 1), headers={"content-type": "application/json"})
    assert large.status_code == 413
    assert client.post("/v1/completions", content=b"[" * 10_000, headers={"content-type": "application/json"}).status_code == 400
