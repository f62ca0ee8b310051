"""Tests the colours of both themes: all text has enough contrast."""

import re
from importlib import resources

import pytest

TEXT = ("ink", "soft", "kept", "dropped", "warn", "series0", "series1", "series2", "series3")
PAIRS = [*((text, under) for text in TEXT for under in ("page", "panel")), ("warn", "warn-page"), ("del", "del-page"), ("ins", "ins-page")]


def colors(theme: int) -> dict[str, str]:
    """Returns name to #rrggbb of the light (0) or dark (1) theme."""
    css = resources.files("corpusmill.report.page").joinpath("theme.css").read_text("utf-8")
    found = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    return {name: both[theme] for name, *both in found}


def luminance(color: str) -> float:
    """Returns WCAG's relative luminance."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey that just fails


@pytest.mark.parametrize("theme", [0, 1])
def test_text_can_be_read(theme: int) -> None:
    of = colors(theme)
    low = {pair: contrast(of[pair[0]], of[pair[1]]) for pair in PAIRS if contrast(of[pair[0]], of[pair[1]]) < 4.5}
    assert low == {}
    assert contrast(of["edge"], of["page"]) >= 3 and contrast(of["edge"], of["panel"]) >= 3  # outlines of controls
