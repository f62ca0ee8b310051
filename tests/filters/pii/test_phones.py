"""Phone numbers: every country's example number of the library phonenumbers, the forms of the web, and what only looks like one."""

import re
from collections.abc import Callable

import phonenumbers
import pytest
from phonenumbers import Leniency, PhoneNumberFormat, PhoneNumberMatcher, PhoneNumberType

from corpusmill.filters.pii import FICTION, REGIONS

EXAMPLES = [
    (region, number)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for kind in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE)
    if (number := phonenumbers.example_number_for_type(region, kind)) is not None
]


def found(measure_step: Callable, texts: list[str], **options) -> list[int]:
    return measure_step("pii", {"phone": "<PHONE>", **options}, texts)[0]["pii_phones"]


@pytest.mark.parametrize("form", [PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164])
def test_the_example_of_every_country_behind_a_plus(measure_step: Callable, form: int) -> None:
    written = [phonenumbers.format_number(number, form) for _, number in EXAMPLES]
    fiction = [bool(FICTION.fullmatch(phonenumbers.format_number(number, PhoneNumberFormat.E164))) for _, number in EXAMPLES]
    long_enough = [len(re.sub(r"\D", "", text)) >= 8 for text in written]
    expected = [int(long and not invented) for long, invented in zip(long_enough, fiction)]
    assert sum(expected) > 400
    assert found(measure_step, [f"Contact: {text}, daily" for text in written]) == expected
    assert found(measure_step, [f"x{text}" for text in written]) == [0] * len(written)
    assert found(measure_step, [f"https://x.org/?n={text}" for text in written]) == [0] * len(written)


def test_the_national_example_after_a_word(measure_step: Callable) -> None:
    numbers = [(region, number) for region, number in EXAMPLES if region in REGIONS]
    written = [phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL) for _, number in numbers]
    chosen = [text for text in written if len(re.sub(r"\D", "", text)) >= 9 and "X" not in text]
    fiction = [text for text in chosen if "555-01" in text or "7946 0" in text]
    assert len(chosen) > 90
    texts = [f"Tel.: {text}." for text in chosen if text not in fiction]
    assert found(measure_step, texts) == [1] * len(texts)


FOUND = [
    ("call (415) 923-4567 or 415-923-4568 or 1-800-273-8255, 415.923.4569", 4),
    ("Tel. 030/226 343-0, Fax. 030/226 343 55", 2),
    ("Telefon: 0171 5739101 / 0160 4567890", 2),
    ("Appelez le 01 42 34 56 78 ou 01.42.34.56.79", 2),
    ("Büro (030) 22634355, Telefax 030 22634356", 2),
    ("电话：010 6552 9988", 1),
    ("+49 (0)89 307742-12\n+49\u00a089\u00a0307742 13\n(+49) 89 30774214", 3),
    ("+49 431 – 5 36 22 67, +49 - (40) - 300 30 - 1141, +43 1 72570", 3),
    ("WhatsApp +55 11 96123-4567", 1),
    ("телефон: +7(495) 633-5-633", 1),
    ("phone 0044 20 7946 1234", 1),
]
NOT_FOUND = [
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISBN-13: 9780306406157, ISSN 2049-3630",
    "order 415-923-45678, order number 4159234567, SKU 415 923 4567 890, part 123-456-7890",
    "2019-05-06 2019-05-07, 06.05.2019 12:30, 20190506123000, 1999-2004 2005-2010",
    "1 + 415 923 4567, 5+4159234567=x, 415-923-4567-8910, 3.14159265358979, 10 000 000 000, 1,234,567,890",
    "https://x.org/415-923-4567/ file_415-923-4567.jpg id=+14159234567 a+14159234567 user+14159234567@x.org",
    "0x4159234567 #4159234567 $415.923.4567 415-923-4567% v415.923.4567 192.168.100.2000",
    "pages 201-208 301-308 401-4080, 12 34 56 78 90 12 34, 01 02 03 04 05 06 07",
    "+1 999 999 9999, +000 123 456 789, (123) 456-7890, +99 12345678",
    "RFC 5322, CVE-2024-38475, UTC+0100 20240101, GMT+1 2024 05 06",
    "+1 202-555-0100 and (202) 555-0142 and +44 7700 900123",  # for films and books
]


@pytest.mark.parametrize(("text", "count"), FOUND)
def test_found(measure_step: Callable, text: str, count: int) -> None:
    _, (new,) = measure_step("pii", {"phone": "<PHONE>"}, [text])
    assert found(measure_step, [text]) == [count] and new.count("<PHONE>") == count
    assert not re.search(r"\d{3}", new)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_not_found(measure_step: Callable, text: str) -> None:
    assert found(measure_step, [text]) == [0]


def test_regions_are_a_choice(measure_step: Callable) -> None:
    texts = ["reach 415-923-4567", "Tel. 030 22634355", "01 42 34 56 78", "+49 30 22634355"]
    assert found(measure_step, texts) == [1, 1, 1, 1]
    assert found(measure_step, texts, phone_regions=["DE"]) == [0, 1, 0, 1]
    assert found(measure_step, texts, phone_regions=[]) == [0, 0, 0, 1]


def test_the_librarys_matcher_finds_little_more_in_real_texts(measure_step: Callable, texts: list[str]) -> None:
    """Whatever the matcher finds behind a `+` in real documents is found here."""
    places = [place for place, text in enumerate(texts) if re.search(r"\+\d", text)]
    counts = found(measure_step, [texts[place] for place in places])
    for place, count in zip(places, counts):
        theirs = [match for match in PhoneNumberMatcher(texts[place], None, Leniency.VALID) if match.raw_string.startswith("+")]
        assert count >= len(theirs)
