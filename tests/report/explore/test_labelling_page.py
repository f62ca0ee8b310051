"""Tests labels and forks on the explorer's page: by keys and buttons, with hostile names, and without --write."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, Seen, needs_chromium, opened
from built_run import HOSTILE
from explored import consoled
from waiting import drawn, until

from corpusmill.filters.labels import DocumentLabel, DocumentLabels, LabelFile, hash_of, now
from corpusmill.pipeline.storage import Storage

pytestmark = [needs_chromium, pytest.mark.long]


@pytest.fixture
def run(tmp_path: Path, builder: Callable[[Path], Any]) -> Path:
    builder(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def labelling(run: Path, chromium: Any) -> Iterator[Seen]:
    """Opens the page of labels with --write."""
    with consoled(run, write=True) as (console, address):
        console.who = "anna"
        with opened(chromium, f"{address}#view=labels&stage=filter&token={console.token}") as seen:
            seen.page.wait_for_selector("#queue li")
            drawn(seen.page)
            yield seen
            refused = "error: Failed to load resource: the server responded with a status of 422 (Unprocessable Entity)"
            assert set(seen.console) <= {refused} and all(url.startswith(address) for url in seen.requests)


def given(run: Path) -> list[tuple[str, str]]:
    return sorted((label.who, label.label) for label in LabelFile(Storage(str(run))).read().given.values())


def test_keys_label_the_queue(run: Path, labelling: Seen) -> None:
    page = labelling.page
    assert "token" not in page.url
    page.locator("#queue a").first.click()
    for number, key in enumerate("1n2y"):
        page.wait_for_selector("#document-labels button[aria-pressed=false]")
        before = drawn(page).url
        page.keyboard.press(key)
        until(page, f"location.href !== {before!r}")  # the next document
        drawn(page)
        assert len(given(run)) == number + 1
    assert given(run) == [("anna", "bad"), ("anna", "bad"), ("anna", "good"), ("anna", "good")]
    page.wait_for_selector("#agreement table")
    assert "4 documents, 2 of them bad. They are the first of a random order" in drawn(page).inner_text("#agreement")
    page.go_back()
    page.wait_for_selector("#document-labels [aria-pressed=true]")
    drawn(page).keyboard.press("1")  # the same label again
    until(page, "!document.querySelector('#document-labels [aria-pressed=true]')")
    drawn(page)
    assert len(given(run)) == 3


def test_own_names_and_hostile_ones(run: Path, labelling: Seen) -> None:
    page, file = labelling.page, LabelFile(Storage(str(run)))
    row = page.locator("#queue a").first.get_attribute("data-doc")
    id_ = page.evaluate(f"fetch('/api/document?key={row}').then((answer) => answer.json()).then((found) => found.id)")
    hostile = DocumentLabel(id_, HOSTILE, f"bert {HOSTILE}", now(), hash_of(""))  # written by another program
    file.change(lambda before: DocumentLabels(before.names, {(id_, hostile.who): hostile}))
    page.get_by_text("Names of labels").click()
    page.get_by_label("Names of labels, one a line").fill("good\n<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Save the names").click()
    page.wait_for_selector("#label-counts bdi:has-text('before<script>')")
    drawn(page).locator("#queue a").first.click()
    page.get_by_role("button", name="2 <img src=x onerror=alert(1)>").click()
    drawn(page)
    assert ("anna", "<img src=x onerror=alert(1)>") in given(run)
    assert page.evaluate("document.querySelectorAll('main script, main img').length") == 0
    page.get_by_text("Names of labels").click()
    page.get_by_label("Names of labels, one a line").fill("x" * 10_000)
    page.get_by_role("button", name="Save the names").click()
    until(page, "document.getElementById('error').textContent.includes('1 to 64 characters')")


def test_without_write_labels_are_only_shown(run: Path, chromium: Any) -> None:
    LabelFile(Storage(str(run))).change(lambda before: before.with_labels([DocumentLabel("nobody", "bad", "bert", now(), hash_of(""))]))
    with consoled(run) as (_, address), opened(chromium, f"{address}#view=labels&stage=filter", PHONE) as seen:
        seen.page.wait_for_selector("#queue li")
        assert "start corpusmill explore with --write" in drawn(seen.page).inner_text("#label-counts")
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        seen.page.locator("#queue a").first.click()
        seen.page.wait_for_selector("#document .text")
        drawn(seen.page).keyboard.press("1")
        assert drawn(seen.page).locator("#document-labels button").count() == 0 and given(run) == [("bert", "bad")]
