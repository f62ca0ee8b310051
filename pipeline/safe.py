"""Crawl text made harmless for a terminal or a page: no escape sequences, no controls, no reordering."""

import json
import re

#: ECMA-48 sequences, 7 and 8 bit: strings (OSC, DCS, SOS, PM, APC) with their end, CSI, and two-byte escapes.
_SEQUENCES = re.compile(
    "(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?"
)
#: Control characters but tab and newline; bidirectional controls (UAX #9); line and paragraph separators; BOM,
#: soft joiners that hide text, tag characters; lone surrogates.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_SPACE = re.compile(r"\s+")


def safe_text(text: str, limit: int | None = None) -> str:
    """`text` without what a terminal or a bidirectional layout would obey; at most `limit` characters, then `…`."""
    if limit is not None:
        text = text[: 4 * limit + 64]  # a sequence may stand where the cut will be
    text = _CONTROLS.sub("", _SEQUENCES.sub("", text.replace("\r\n", "\n")))
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def safe_line(text: str, limit: int | None = None) -> str:
    """`safe_text` on one line: every run of white space is one space."""
    if limit is not None:
        text = text[: 8 * limit + 64]
    return safe_text(_SPACE.sub(" ", safe_text(text)).strip(), limit)


def quoted(text: str, limit: int | None = None) -> str:
    """`text` as a JSON string in which whatever a terminal would obey or hide is an escape, so that nothing of it is lost."""
    shown = json.dumps(text if limit is None else text[:limit], ensure_ascii=False)
    shown = _CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], shown)
    return shown if limit is None or len(text) <= limit else shown + "…"
