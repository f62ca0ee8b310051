"""Makes text of a crawl harmless for a terminal or a page: no escape sequences, no control characters, no reordering."""

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
    """Returns `text` without escape sequences and control characters (bidirectional ones included), cut to `limit` characters, the
    last of which is then `…`."""
    if limit is not None:
        text = text[: 4 * limit + 64]  # longer than `limit`, since sequences are removed
    text = _CONTROLS.sub("", _SEQUENCES.sub("", text.replace("\r\n", "\n")))
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def safe_line(text: str, limit: int | None = None) -> str:
    """As `safe_text`, on one line: each run of white space becomes one space."""
    if limit is not None:
        text = text[: 8 * limit + 64]
    return safe_text(_SPACE.sub(" ", safe_text(text)).strip(), limit)


def quoted(text: str, limit: int | None = None) -> str:
    """Returns `text` as a JSON string in which control characters are JSON escapes, so that none of them is lost."""
    shown = json.dumps(text if limit is None else text[:limit], ensure_ascii=False)
    shown = _CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], shown)
    return shown if limit is None or len(text) <= limit else shown + "…"
