"""Tests the marks in a document's text: their places by the API, and their use in Chromium, with hostile text in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import client_of
from browser import Seen, needs_chromium
from explored import explored
from starlette.testclient import TestClient
from waiting import drawn


@pytest.fixture(scope="module")
def client(marked_run: Path) -> TestClient:
    return client_of(marked_run)


def ask(client: TestClient, stage: str, name: str, part: str) -> Any:
    """Returns a part of the document http://NAME.test/ as a stage's list has it."""
    rows = client.get("/api/documents", params={"stage": stage, "url": f"http://{name}.test/"}).json()["rows"]
    answer = client.get("/api/document", params={"key": rows[0]["key"], "part": part})
    assert answer.status_code == 200, answer.text
    return answer.json()


def marked(client: TestClient, stage: str, name: str) -> dict[str, tuple[str, int, list[str]]]:
    """Returns by rule (or by the words of a change) what is marked, how often, and the texts in the marks."""
    units = ask(client, stage, name, "story")["text"].encode("utf-16-le")
    marks = ask(client, stage, name, "marks")["marks"]
    cut = {mark["what"]: [units[2 * begin : 2 * end].decode("utf-16-le") for begin, end in mark["spans"]] for mark in marks}
    return {mark["rule"] or mark["what"]: (mark["what"], mark["count"], cut[mark["what"]]) for mark in marks}


def test_marks_are_the_places_of_the_shown_text(client: TestClient) -> None:
    line = "The miller of the river ground the corn. \U0001f600 and\u202e more."
    for stage in ("filter", "ingest"):
        found = marked(client, stage, "repeats")
        assert found["dup_line_frac"] == ("copies of an earlier line", 3, [line] * 3)
        assert found["top_4_gram"] == ("the most frequent phrase of 4 words", 4, ["The miller of the"] * 4)
        assert found["curly_bracket"] == ("lines with a curly bracket", 1, ["a { bracket ends."])
        assert found["char_dup_ratio"][1:] == (3, [line] * 3)  # measured after c4, whose text lacks two lines
        assert found["what c4 leaves out of the text"][1:] == (2, ["menu", "{"])
    mail = marked(client, "filter", "mail")
    assert mail["pii_emails"] == ("finds of an email address", 1, ["anna@firma.de"])
    assert mail["bad_words"] == ("words of the list en", 2, ["damns", "damn"])
    assert mail["finds of an email address, replaced"][2] == ["anna@firma.de"]
    assert mail["what c4 leaves out of the text"][2] == ["menu", "Short."]
    assert marked(client, "filter", "first").keys() == {"what c4 leaves out of the text"} and marked(client, "dedup", "first") == {}


def test_a_rule_without_places_says_so(run_folder: Path) -> None:
    asking = client_of(run_folder)
    rows = asking.get("/api/documents", params={"stage": "filter", "url": "page-14"}).json()["rows"]
    found = asking.get("/api/document", params={"key": rows[0]["key"], "part": "marks"}).json()["marks"]
    assert [(mark["rule"], mark["count"], mark["spans"]) for mark in found] == [("short", None, []), ("symbols", None, [])]
    assert all(mark["what"].startswith("a value of the whole text") for mark in found)


def test_a_copy_has_its_words_compared_and_a_page_its_blocks(client: TestClient) -> None:
    for stage in ("dedup", "filter"):
        diff = ask(client, stage, "first", "marks")["diff"]
        changed = [(passage["kind"], passage["text"]) for passage in diff["passages"] if passage["kind"] in ("removed", "added")]
        assert (diff["removed"], diff["added"]) == (0, 5) and changed == [("added", "This is more of it.")]
        assert ask(client, stage, "second", "marks")["diff"] is None
    page = ask(client, "filter", "mail", "page")
    assert page["blocks"][0]["text"] == "menu" and page["left"] == 0
    assert all(block["kept"] for block in page["blocks"])  # the recipe keeps all blocks


# ---- in a browser


@pytest.fixture(scope="module")
def address(marked_run: Path) -> Iterator[str]:
    with explored(marked_run) as served:
        yield served


def open_document(seen: Seen, name: str) -> Any:
    seen.page.locator("#list a", has_text=f"{name}.test").click()
    seen.page.wait_for_selector("#document .switch")
    return drawn(seen.page)


@needs_chromium
def test_marks_are_shown_hidden_and_gone_through(seen: Seen) -> None:
    page = open_document(seen, "repeats")
    line = page.locator("#why li", has_text="dup_para_frac")
    switch = line.locator(".switch")
    assert switch.inner_text() == "3 places: copies of an earlier paragraph" and switch.get_attribute("aria-pressed") == "true"
    marks = page.locator("#document .text mark.m0")
    assert "".join(marks.all_text_contents()).count("The miller of the river") == 3
    for place in ("1 of 3", "2 of 3", "3 of 3", "1 of 3"):
        line.get_by_role("button", name="Next place: dup_para_frac").click()
        assert line.locator("[role=status]").inner_text().strip() == place and page.locator(".text mark.here").count() == 1
    switch.click()
    assert marks.count() == 0 and switch.get_attribute("aria-pressed") == "false"
    line.get_by_role("button", name="Next place: dup_para_frac").click()  # shows them again
    assert marks.count() > 0 and switch.get_attribute("aria-pressed") == "true"
    assert page.locator("#why li", has_text="gopher_below_alpha").count() == 0
    page.get_by_role("button", name="and 8 more").click()
    assert page.locator("#why .failed").first.locator("li").count() == 14
    words = page.locator("#why li", has_text="gopher_below_alpha").locator(".switch")
    words.click()
    inside = page.locator("#document .text mark", has_text=re.compile("^>"))
    assert words.get_attribute("aria-pressed") == "true" and inside.count() > 0  # a mark in markup that is only text


@pytest.mark.long
@needs_chromium
def test_hostile_text_in_marks_does_nothing(seen: Seen) -> None:
    page = open_document(seen, "repeats")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="and 8 more").click()
    while (hidden := page.locator("#why .switch[aria-pressed=false]")).count():
        hidden.first.click()
    page.locator("summary", has_text="The page, with what").click()
    page.wait_for_selector(".blocks li")
    assert drawn(page).locator(".blocks li.kept", has_text="<script>alert(1)</script>").count() == 1
    assert page.locator("main script, main img, [onerror]").count() == 0 and dialogs == []
    assert "\u202e" not in page.evaluate("document.body.innerText") and page.locator(".text mark .control").count() >= 4
