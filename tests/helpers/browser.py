"""Chromium, Debian's or an npm package's (npm_chromium.py), driven by Playwright: pages as they are seen, and what they say and ask for."""

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


@dataclass
class Seen:
    """A page, and what it said and asked for: `console` has warnings, errors and exceptions, `requests` all addresses."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def _program() -> tuple[str, dict[str, str]]:
    """Where Chromium lies, and what its environment needs."""
    if CHROMIUM is not None:
        return CHROMIUM, {}
    try:
        program, environment = npm_chromium()
    except InputError as error:
        pytest.skip(str(error))
    return str(program), environment


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; no tab of it reaches beyond this machine. Skips the test where none can be had."""
    from playwright.sync_api import sync_playwright

    program, environment = _program()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 or environment else []  # what comes without installation has no sandbox
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=[*arguments, "--disable-quic"], env={**os.environ, **environment})
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(chromium: Any, url: str, size: tuple[int, int] = DESK, theme: str = "light", **options: Any) -> Iterator[Seen]:
    """A new tab with `url`, once it is loaded."""
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme, **options)
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
