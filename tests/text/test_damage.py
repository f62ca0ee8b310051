"""Tests the rate of wrongly decoded text, on real text of 75 languages, right and wrong, against ftfy."""

from collections import Counter
from pathlib import Path

import ftfy
import pytest

from corpusmill.text.damage import mojibake_rate


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("", 0),
        ("Grüße aus «Köln», „Spaß“ – «été\xa0» – voilà\xa0! – „MENÜ“ – É» – €5…", 0),
        ("Съешь же ещё этих мягких французских булок", 0),
        ("cafÃ©", 2),
        ("itâ€™s", 3),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", 12),
        ("a\ufffdb", 1),
        ("\x93quoted\x94", 2),
        ("itÃ¢â‚¬â„¢s", 8),
    ],
)
def test_what_counts(text: str, characters: int) -> None:
    assert mojibake_rate(text) == pytest.approx(characters / len(text) if text else 0.0)


def languages(shared_data: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text("utf-8").splitlines() for path in sorted((shared_data / "lid").glob("*.txt"))}


def test_good_text_has_none_and_ftfy_agrees(shared_data: Path) -> None:
    """The few lines of this real text that count as damaged really are: ftfy finds them too."""
    agree: Counter[tuple[bool, bool]] = Counter()
    for language, lines in languages(shared_data).items():
        assert mojibake_rate("\n".join(lines)) < 0.003, language
        agree.update((mojibake_rate(line) > 0, "\ufffd" in line or ftfy.is_bad(line)) for line in lines)
    assert agree[True, True] > 100 and agree[False, False] > 30_000
    assert agree[True, False] == 0
    assert agree[False, True] < 30  # other readings, in windows-1250 and others, are not counted


def test_text_in_a_wrong_encoding_has_much_of_it(shared_data: Path) -> None:
    """Where UTF-8 was read as windows-1252, nearly every character beyond ASCII counts."""
    lines_found = lines_fixed = 0
    for language, lines in languages(shared_data).items():
        broken = "\n".join(lines).encode().decode("sloppy-windows-1252")  # ftfy brings the sloppy codec
        beyond = sum(not character.isascii() for character in broken) / len(broken)
        assert mojibake_rate(broken) >= 0.75 * beyond, (language, beyond)
        for line in lines[:50]:
            if not line.isascii():
                bad = line.encode().decode("sloppy-windows-1252")
                lines_found += mojibake_rate(bad) > 0
                lines_fixed += ftfy.fix_encoding(bad) != bad
    assert lines_found >= lines_fixed > 2000
