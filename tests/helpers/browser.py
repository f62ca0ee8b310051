"""Drives a headless Chromium (Debian's, or npm_chromium.py's) by Playwright; records console messages and requests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from npm_chromium import POSSIBLE, npm_chromium

from corpusmill.pipeline.errors import InputError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not POSSIBLE, reason="no Chromium here (Debian: apt install chromium)")
PHONE, DESK = (390, 844), (1300, 900)


#: Milliseconds that a page may take: many, for busy machines.
PATIENCE = 90_000


@dataclass
class Seen:
    """A page with its messages and requests: `console` has warnings, errors and exceptions, `requests` all addresses."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def _program() -> tuple[str, dict[str, str]]:
    """Returns the path of Chromium, and the environment that it needs."""
    if CHROMIUM is not None:
        return CHROMIUM, {}
    try:
        program, environment = npm_chromium()
    except InputError as error:
        pytest.skip(str(error))
    return str(program), environment


@contextmanager
def browser() -> Iterator[Any]:
    """Yields a headless Chromium whose tabs can't reach beyond this machine. Skips the test where there is none."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    program, environment = _program()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 or environment else []  # a Chromium from an npm package has no sandbox
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=[*arguments, "--disable-quic"], env={**os.environ, **environment})
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(chromium: Any, url: str, size: tuple[int, int] = DESK, theme: str = "light", **options: Any) -> Iterator[Seen]:
    """Yields a new tab with `url`, once it is loaded."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme, **options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    seen = Seen(page)
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}") if message.type != "log" else None)
    page.on("pageerror", lambda error: seen.console.append(f"exception: {error}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    try:
        page.goto(url)
        yield seen
    finally:
        context.close()


#: WCAG 2.2, levels A and AA; and axe's best practices.
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def expect_accessible(page: Any, *where: object, themes: tuple[str, ...] = ("light", "dark")) -> None:
    """Checks that axe-core finds nothing in a page, in each theme. `where` is said where it finds something."""
    from axe_playwright_python.sync_playwright import Axe

    for theme in themes:
        page.emulate_media(color_scheme=theme)
        found = Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}}).response
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]] == [], (*where, theme)
        assert {"color-contrast", "region"} <= {rule["id"] for rule in found["passes"]}
