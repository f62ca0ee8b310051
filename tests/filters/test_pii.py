"""Tests personal data and secrets: finds, and their replacements."""

import base64
import ipaddress
import json
import random
import re
import string
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import phonenumbers
import pyarrow as pa
import pytest
from datatrove.pipeline.formatters.pii import PIIFormatter
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from phonenumbers import Leniency, PhoneNumberFormat, PhoneNumberMatcher, PhoneNumberType
from pydantic import ValidationError
from stdnum import iban, luhn
from stdnum.iso7064 import mod_97_10

from corpusmill.filters.pii import FICTION, IDS, KINDS, LISTS, REGIONS, NationalId, Pii, PiiConfig, length_of

# ---- The step as a whole: all kinds on one text, overlaps, placeholders, rules, real and hostile documents.

#: One text for each kind, with one find of this kind and none of another.
ONE_OF_EACH = {
    "pii_secrets": "the key AKIA" + "IOSFODNN7EXAMPLF was revoked",
    "pii_emails": "write to jane.doe@mail.example-shop.co.uk today",
    "pii_ibans": "pay to DE89 3704 0044 0532 0130 00 please",
    "pii_credit_cards": "card 4111 1111 1111 1111 expires 12/27",
    "pii_national_ids": "CPF 390.533.447-05 do titular",
    "pii_ipv6": "host 2606:4700:4700::1111 answered",
    "pii_ipv4": "host 93.184.216.34 answered",
    "pii_phones": "call (415) 923-4567 now",
}
DEFAULT = [kind for kind in KINDS if kind.default]
COLUMNS = [kind.column for kind in DEFAULT]


def test_each_kind_is_counted_and_replaced(measure_step: Callable) -> None:
    columns, new = measure_step("pii", {}, list(ONE_OF_EACH.values()))
    assert set(columns) == set(COLUMNS) == set(ONE_OF_EACH)
    for place, found in enumerate(ONE_OF_EACH):
        assert {name: column[place] for name, column in columns.items()} == {name: int(name == found) for name in COLUMNS}
    for kind in DEFAULT:
        assert kind.placeholder in new[list(ONE_OF_EACH).index(kind.column)]


def test_kinds_that_are_not_looked_for_are_left_and_have_no_column(measure_step: Callable) -> None:
    columns, new = measure_step("pii", {"kinds": ["ipv4", "email"]}, list(ONE_OF_EACH.values()))
    assert columns == {"pii_emails": [0, 1, 0, 0, 0, 0, 0, 0], "pii_ipv4": [0, 0, 0, 0, 0, 0, 1, 0]}
    assert [text for text in new if "example" in text or "192.0.2.1" in text] == [
        "write to email@example.com today",
        "host 192.0.2.1 answered",
    ]
    with pytest.raises(ValidationError, match="kinds: no such kind: 'faces'"):
        PiiConfig(kinds=["faces"])
    with pytest.raises(ValidationError, match="most.phone: no such kind"):
        PiiConfig(kinds=["email"], most={"phone": 3})


OVERLAPS = [
    ("https://user:s3cr3tpw@mail.company.org/x", "pii_secrets", "https://user:<SECRET>@mail.company.org/x"),
    ("GB29 NWBK 6016 1331 9268 19", "pii_ibans", "<IBAN>"),
    ("Tel. 4111111111111111", "pii_credit_cards", "Tel. <CREDIT_CARD>"),
    ("user@93.184.216.34", "pii_ipv4", "user@192.0.2.1"),
]


@pytest.mark.parametrize(("text", "column", "expected"), OVERLAPS)
def test_the_first_kind_of_the_table_has_it(measure_step: Callable, text: str, column: str, expected: str) -> None:
    columns, new = measure_step("pii", {}, [text])
    assert new == [expected] and [name for name in columns if columns[name] != [0]] == [column]
    kind = next(kind for kind in DEFAULT if kind.column == column)
    _, left = measure_step("pii", {kind.name: None}, [text])  # a later kind does not match text that an earlier kind leaves unchanged
    assert left == [text]


PIECES = st.sampled_from(
    [*ONE_OF_EACH.values(), "Tel. 030 901820", "DNI 12345678-Z", "93.184.216.34", "a@b.de", "12/25", "+49 30 901820", "7"]
)


@given(st.lists(st.tuples(PIECES, st.sampled_from(["", " ", ", ", "/", " or ", "\n", ": ", "|"])), min_size=1, max_size=6))
def test_a_second_pass_changes_nothing(measure_step: Callable, pieces: list[tuple[str, str]]) -> None:
    _, once = measure_step("pii", {}, ["".join(map("".join, pieces))])
    columns, twice = measure_step("pii", {}, once)
    assert once == twice and not any(sum(column) for column in columns.values())


def test_datatrove_finds_the_same_emails_in_real_documents(measure_step: Callable, many_texts: list[str]) -> None:
    """Less the signs around them that datatrove takes for part of an address, and addresses in URLs."""
    reference = PIIFormatter(email_replacement="email@example.com", remove_ips=False)
    texts = [text for text in many_texts if "@" in text]
    _, ours = measure_step("pii", {"kinds": ["email"]}, texts)
    theirs = [reference.format(text) for text in texts]
    assert [text.count("email@example.com") for text in ours] == [text.count("email@example.com") for text in theirs]
    assert sum("email@" in text for text in ours) > 10


HOSTILE = [
    "1 ", "1.", "+1 ", "a.", "a@b.", "::1", "DE89 ", "eyJaaaaaaaaaaaa.", "://a:b@", "-----BEGIN PRIVATE KEY-----A ", "tel 123456789 ",
    "PESEL 44051401358 ", "4111 1111 1111 1112 ", "é1", "\n01 2 3 4 5 6 7 8 9 0 1 2x", "-----BEGIN PRIVATE KEY-----\nAa: Aa: Aa: ",
    "abcdefg 12345678. ",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_texts_take_linear_time(measure_step: Callable, unit: str) -> None:
    """A text that is eight times as long takes far less than 64 times as long. A pause may spoil a trial, so there are three."""
    measure_step("pii", {}, [unit])

    def seconds(size: int) -> float:
        start = time.process_time()
        measure_step("pii", {}, ["+49 30 901820.\n\n" + unit * (size // len(unit)) + "@1"])
        return time.process_time() - start

    assert any(seconds(100_000) < 24 * seconds(12_500) + 0.02 for _ in range(3))


def test_the_steps_page_has_the_right_counts() -> None:
    page = (Path(__file__).parents[2] / "docs/stages/pii.md").read_text("utf-8")
    assert f"{len(LISTS['secrets'])} formats of keys" in page
    assert f"{len(IDS)} kinds of numbers" in page
    assert f"{len(REGIONS)} countries" in page
    assert f"{sum(entry.alone is not None for entry in IDS)} kinds of national ids have letters" in page


def test_limits_are_rules(measure_step: Callable) -> None:
    assert Pii(PiiConfig()).rules == ()
    (rule,) = Pii(PiiConfig(most={"email": 20})).rules
    assert (rule.name, rule.column, rule.comparison, rule.threshold) == ("pii_emails", "pii_emails", ">", 20)
    assert rule.failing(pa.array([0, 20, 21])).tolist() == [False, False, True]
    with pytest.raises(ValidationError, match=r"most\.email: -1 is below 0"):
        PiiConfig(most={"email": -1})


# ---- What other recognisers' test cases found: personal data that stayed, and text that was damaged. In `[...]` stands what must go.

#: Tokens are assembled, so that no scanner takes this file for a leak.
LEAKED = [
    "glpat-" + "x1Y_" * 7 + ".01.0a1b2c3d4", "EAAM" + "bC9d" * 30, "xkeysib-" + "0f" * 32 + "-" + "aB3d" * 4, "pul-" + "0f" * 20,
    "LTAI" + "aB3d" * 5, "sntrys_eyJ" + "aB3d" * 20 + "_" + "aB3d" * 10 + "abc", "ops_eyJ" + "aB3d" * 70, "gsk_" + "aB3d" * 13,
    "xai-" + "aB3d" * 20, "sk-or-v1-" + "0f" * 32,
]  # fmt: skip
STAYED = {
    "neighbours": [
        "[anna@a.de]/[bernd@b.de]", "[anna@a.de]|[bernd@b.de]", "Tel: [030 901820], [030 901821]",
        "call [0800 138 1016] or [0800 138 1018]",
    ],
    "eight digits": ["Tlf: [21 23 45 67]", "Tel. [6123 4567]", "RUT: [6.718.349-5]", "RUT: [12.345.678-5]"],
    "labels": [
        "Telefonnummer: [030 901820]", "Telefoonnummer: [020 624 1111]", "Handynummer: [0171 2345678]", "Телефоны: [8 495 123-45-67]",
        "联系电话：[010 65529988]", "電話番号：[03-3581-4111]", "전화번호: [02-3460-0114]", "เลขบัตรประชาชน [1-2345-45678-78-1]",
        "DNI:[12345678Z]", "CF:[RSSMRA85T10A562S]", "CURP:[BOXW310820HNERXN09]", "Card No:[4012888888881881]",
        "IP:[2a02:2e0:3fe:1001:7777:772e:2:85]", "IBAN [DE89\xa03704\xa00044\xa00532\xa00130\xa000]",
        "[4012\xa08888\xa08888\xa01881]", "Fax Redaktion: [030 901820]", "İletişim: [0212 251 45 54]",
        "☎ [030 901820]", "T [030 901820]\nF [030 901821]",
        "Kontakt\n\n[0221/1773-1000]\n\nMontag", "☎️ [030 901820]", "Büro, T [030 901820]", "Call Anna on [0171 2345678]",
        "Call [4159232671]",
        "[+1 (650) 253-0000 x123]", "[(650) 253-0000x12]", "Paris [01.23.45.67.89] 12 rue X", "DOB 04/11/1978 SSN [536-90-4399]",
        "iban: [de89370400440532013000]", "Tel. [+41 58 765 50 76]E-Mail", "[195.20.105.149] www.a.org",
    ],
    "letters and digits beyond ASCII": [
        "[jörg.müller@web.de]", "[info@müller.de]", "[nguyễn@gmail.com]", "[jo\u0308rg@a.de]", "[संपर्क@gmail.com]", "[иван@почта.рф]",
        "[x@y.xn--p1ai]", "联系[a@b.com]谢谢", "[用户@例子.中国]",
        "هاتف: [٠٥٠١٢٣٤٥٦٧]", "電話 [０３－３５８１－４１１１]",
    ],
    "secrets": ["postgres://app:[p%40ss99]@localhost:5432", *(f"key = '[{token}]'" for token in LEAKED)],
    "national ids": [
        "DNI [12.345.678-z]", "[12.345.678-Z]", "[RSS MRA 85T10 A562S]", "Aadhaar Card No: [2341 2341 2346]", "SSN: [536-90-4399]",
        "ITIN [912-90-3456]", "National Insurance No. [AB 12 34 56 C]", "PAN: [ABCPE1234F]", "NRIC [S1234567D]", "FIN: [G1234567X]",
        "Rentenversicherungsnummer [65 170839 J 003]", "ABN [51 824 753 556]", "Medicare No. [2123 45670 1]",
        "외국인등록번호 [810101-5100000]", "HKID: [A123456(3)]", "身分證字號 [A123456789]", "СНИЛС [112-233-445 95]",
        "[P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<]\n[L898902C36UTO7408122F1204159ZE184226B<<<<<10]",  # ICAO 9303-4, appendix A
    ],
    "cards": [
        "[4012 8888 8888 1881] 12/25", "[4012888888881881] [4012 8888 8888 1881] [4012-8888-8888-1881]", "[5018 0000 0000 0009]",
        "[6362 9700 0045 7013]", "[6062 8267 8627 6634]", "[6521 5000 0000 0006]", "[9792 0300 0000 0000]",
    ],
    "addresses": [
        "[2a02::1]", "[2a02:2e0::81.2.69.142]", "[::ffff:81.2.69.142]", "host/[81.2.69.142]", "[81.2.69.142]-[81.2.69.150]",
        "www.a.org/[81.2.69.142]",
    ],
    "labels of another kind": [
        "Front desk: [020 7946 1958]", "Reservas: [934 12 34 56]", "Anna Berg, [0171 2345678]", "| Empfang | [030 901820] |",
        "[8 (916) 123-45-67]", "[010-2345-6789]", "[090-1234-5678]", "[138 1234 5678]", "[00442079461958]", "[0049 30 901820]",
        "nhare: [0772 123 456]", "Registrant Phone: [+1.4155552671]",
    ],
    "forms of payment": [
        "Payment\n[4012 8888 8888 1881]\nThanks", "IBAN [DE89370400440532013000]请付款", "[de89 3704 0044 0532 0130 00]",
        "[GB29 NWBK 6016 1331 9268 19] [DE89370400440532013000]",
    ],
    "signs around": ["([+49 30 901820])", "'[a@b.de]'", "**[a@b.de]**", "`[a@b.de]`", "_[a@b.de]_", "[(+49) 30 901820]"],
}  # fmt: skip
DAMAGED = [
    "https://medium.com/@jane.doe/x", "https://lore.kernel.org/git/20200101.abc@host.org/", "https:email@example.com/x", "logo@2x.png",
    "getty@tty1.service", "x :=@M.DoX;", "git@github.com:a/b.git", "34.4.4.1. Handling", "\n134.14.44.1. Handling", "EC 3.4.21.62",
    "OID 2.5.29.37", '"version": "91.0.44.124"', "Chrome/91.0.44.124", "Skype 8.96.0.207", "make the call.\n\n2002-08-31 (2.7.1)",
    "call 07-29-2008", "+922 337 203 685 477,5807", "01 02 03 04 05", "Loto: 04 11 19 23 38 + 07", "nameserver 8.8.8.8, IP 9.9.9.9",
    "QQ 12 34 56 C", "SP, CEP 01310-100", "Open 0900-1700", "call 20231105", "GSM 850/900/1800/1900", "Référence 04 78 12 34 56",
    "SKU 303-221-4567", "SKU 12345678Z", "reach 10000000 people", "iPhone 13 10023456", "@anna@mastodon.social", "=TEXT(12.34567)",
    "News\n05 03 2021\nmore", "Fax (1999-2004)", "Fax 1999 2004", "Telefon 10 000 000", "Telefon: 2.500.000 Euro", "Call 10000000 people",
    "+48.857712, +2.295000", "foo==4.52.117.3", "Fixed in 4.52.117.3.", "foo < 94.52.117.33", "aes128-gcm@openssh.com",
    "Order: 0171 2345678", "root@db.internal", "SELECT * FROM staff@hq.acme.com", "Einwohner: 934 123 456",
]  # fmt: skip


@pytest.mark.parametrize("point", STAYED)
def test_personal_data_goes_and_nothing_else(measure_step: Callable, point: str) -> None:
    kinds = {kind.name: "#" for kind in DEFAULT}
    _, new = measure_step("pii", kinds, [re.sub(r"[\[\]]", "", text) for text in STAYED[point]])
    assert new == [re.sub(r"\[.*?\]", "#", text) for text in STAYED[point]]


HIDDEN = [
    "jane dot doe at mail dot company dot org", "jane [at] company.org", "jane(at)company(dot)org", "jane AT company DOT org",
    "jane at company dot org", "info_at_company_dot_de", "jane arroba empresa punto es", "jane AT company.org",
]  # fmt: skip


def test_addresses_in_words_are_a_kind_of_their_own(measure_step: Callable) -> None:
    assert measure_step("pii", {}, HIDDEN)[1] == HIDDEN
    columns, new = measure_step("pii", {"kinds": ["hidden_email"]}, [f"or {text}, thanks" for text in HIDDEN])
    assert columns == {"pii_hidden_emails": [1] * len(HIDDEN)} and new == ["or email@example.com, thanks"] * len(HIDDEN)
    others = ["look at company.org for it", "we met at noon dot", "at the dot com boom", "jane at company dot nothing"]
    assert measure_step("pii", {"kinds": ["hidden_email"]}, others)[1] == others


def test_other_text_stays(measure_step: Callable) -> None:
    _, new = measure_step("pii", {}, DAMAGED)
    assert new == DAMAGED


# ---- Email and internet addresses, against hand-written tables and the standard library.

EMAILS = [
    ("write to jane.doe+news@mail.example-shop.co.uk today", 1),
    ("<a@b.de>, (c@d.org); mailto:e@f.net", 3),
    ("someone@example.com and me@test.example.org", 0),  # reserved for examples
    ("a @ b, @user, user@localhost, a@b, 5@3.4", 0),
    ("пишите на ivan@почта.рф или ivan@pochta.ru", 2),
    ("x" * 600 + "@a.de " + "y" * 64 + "@b.de", 1),
]
IPV4 = [
    ("host 93.184.216.34 answered", 1),
    ("http://93.184.216.34/index.html and 93.184.216.34:8080", 2),
    ("地址93.184.216.34。", 1),
    ("192.168.0.1 10.0.0.1 127.0.0.1 172.16.3.4 169.254.1.1 0.0.0.0 255.255.255.255", 0),  # belongs to nobody
    ("192.0.2.1 198.51.100.7 203.0.113.9", 0),  # for documentation
    ("300.1.1.1 93.184.216 93.184.216.34.5 1.93.184.216.34", 0),
    ("version 91.0.4472.124, v92.1.44.77, release: 10.15.77.21, Chrome/91.0.4472.124", 0),
    ("package-93.184.216.34 and 93.184.216.34-beta, 1.2.3.4, section 12.34.56.78, § 93.184.216.34", 0),
    ("93.184.016.34", 0),  # leading zeros
]
IPV6 = [
    ("dns 2001:4860:4860::8888, 2001:4860:4860:0:0:0:0:8844.", 2),
    ("http://[2606:4700:4700::1111]:443/ and 2a00:1450:4001:81b::200e/64", 2),
    ("2001:db8::1 fe80::1 ::1 fc00::1234:1 ff02::1 64:ff9b::1:2 3fff::1:2", 0),  # documentation, local, multicast, translation
    ("12:30:15 at 10:20:30:40, 00:1b:63:84:45:e6, std::vector::add, a::b::c, 2001:2002:2003", 0),
    ("2001:4860:4860::8888::1 2001:4860:4860::88888 x2001:4860:4860::8888 2001:4860:4860::8888g", 0),
    ("2400::", 0),  # fewer than three groups
]


@pytest.mark.parametrize(
    ("column", "placeholder", "rows"),
    [("pii_emails", "email@example.com", EMAILS), ("pii_ipv4", "192.0.2.1", IPV4), ("pii_ipv6", "2001:db8::1", IPV6)],
)
def test_finds(measure_step: Callable, column: str, placeholder: str, rows: list[tuple[str, int]]) -> None:
    columns, new = measure_step("pii", {}, [text for text, _ in rows])
    assert columns == {name: [count if name == column else 0 for _, count in rows] for name in COLUMNS}
    for (text, count), replaced in zip(rows, new):
        assert replaced.count(placeholder) == count if count else replaced == text


@given(st.integers(0x2000 << 112, (0x3000 << 112) - 1).map(ipaddress.IPv6Address), st.booleans())
def test_any_public_ipv6_address(measure_step: Callable, address: ipaddress.IPv6Address, long: bool) -> None:
    written = address.exploded if long else str(address)
    columns, _ = measure_step("pii", {}, [f"from {written}, port 80"])
    assert columns["pii_ipv6"] == [int(address.is_global and len([group for group in written.split(":") if group]) >= 3)]


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_any_ipv4_address(measure_step: Callable, address: ipaddress.IPv4Address) -> None:
    columns, _ = measure_step("pii", {}, [f"from {address}, port 80"])
    public = address.is_global and not address.is_multicast
    if str(address) not in ("1.1.1.1", "8.8.8.8"):  # and other public resolvers
        assert columns["pii_ipv4"] == [int(public and any(part >= 32 for part in address.packed))]


# ---- Phone numbers: every country's example number of the library phonenumbers, the web's forms, and strings that only look like one.

EXAMPLES = [
    (region, number)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for kind_phones in (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE)
    if (number := phonenumbers.example_number_for_type(region, kind_phones)) is not None
]


def found(measure_step: Callable, texts: list[str], **options) -> list[int]:
    return measure_step("pii", {"phone": "<PHONE>", **options}, texts)[0]["pii_phones"]


@pytest.mark.parametrize("form", [PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164])
def test_the_example_of_every_country_behind_a_plus(measure_step: Callable, form: int) -> None:
    written = [phonenumbers.format_number(number, form) for _, number in EXAMPLES]
    fiction = [bool(FICTION.fullmatch(phonenumbers.format_number(number, PhoneNumberFormat.E164))) for _, number in EXAMPLES]
    long_enough = [len(re.sub(r"\D", "", text)) >= 7 for text in written]
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
    ("Appelez le 01 42 34 56 78 ou 01.42.34.56.79", 2),
    ("电话：010 6552 9988", 1),
    ("+49 (0)89 307742-12\n+49\u00a089\u00a0307742 13\n(+49) 89 30774214", 3),
    ("+49 431 – 5 36 22 67, +49 - (40) - 300 30 - 1141, +43 1 72570", 3),
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


def test_phones_as_they_are_written(measure_step: Callable) -> None:
    columns, new = measure_step("pii", {"phone": "<PHONE>"}, [text for text, _ in FOUND])
    assert columns["pii_phones"] == [count for _, count in FOUND] == [text.count("<PHONE>") for text in new]
    assert not any(re.search(r"\d{3}", text) for text in new)
    assert found(measure_step, NOT_FOUND) == [0] * len(NOT_FOUND)


def test_regions_are_a_choice(measure_step: Callable) -> None:
    texts = ["it is 415-923-4567", "Tel. 030 22634355", "01 42 34 56 78", "+49 30 22634355"]
    assert found(measure_step, texts) == [1, 1, 1, 1]
    assert found(measure_step, texts, phone_regions=["DE"]) == [0, 1, 0, 1]
    assert found(measure_step, texts, phone_regions=[]) == [0, 0, 0, 1]
    with pytest.raises(ValidationError, match="phone_regions: 'USA' is no country with a numbering plan"):
        PiiConfig(phone_regions=["USA"])


def test_the_librarys_matcher_finds_no_more_in_real_texts(measure_step: Callable, many_texts: list[str]) -> None:
    """Whatever the matcher finds after a `+` in real documents is found here."""
    texts = [text for text in many_texts if re.search(r"\+\d", text)]
    found_there = [[m for m in PhoneNumberMatcher(text, None, Leniency.VALID) if m.raw_string.startswith("+")] for text in texts]
    assert any(found_there) and all(count >= len(theirs) for count, theirs in zip(found(measure_step, texts), found_there))


# ---- Cards, accounts and national numbers: the libraries' own examples are found; with another check digit they are not.

DIGITS = st.text(string.digits, min_size=30, max_size=30)


@pytest.fixture(scope="module")
def found_numbers(measure_step: Callable) -> Callable[[str], dict[str, int]]:
    """Returns the counts of finds in a text by kind, without zeros."""

    def count(text: str) -> dict[str, int]:
        columns, _ = measure_step("pii", {}, [text])
        return {name: number for name, (number,) in columns.items() if number}

    return count


# ---- cards ------------------------------------------------------------------------------------------------


def grouped(number: str, separator: str) -> str:
    sizes = {14: (4, 6, 4), 15: (4, 6, 5), 16: (4, 4, 4, 4), 19: (4, 4, 4, 4, 3)}[len(number)]
    parts, rest = [], number
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return separator.join(parts)


CARD_PREFIXES = {"4": 16, "51": 16, "55": 16, "2221": 16, "2720": 16, "34": 15, "37": 15, "6011": 16, "65": 16, "3589": 16, "36": 14}


@given(st.sampled_from(sorted(CARD_PREFIXES)), DIGITS, st.integers(0, 20), st.integers(1, 9), st.sampled_from(["", " ", "-"]))
def test_any_card(found_numbers: Callable, prefix: str, digits: str, place: int, change: int, separator: str) -> None:
    number = (prefix + digits)[: CARD_PREFIXES[prefix] - 1]
    number += luhn.calc_check_digit(number)
    assume(len(set(number)) > 1)
    assert found_numbers(f"№ {grouped(number, separator)}\nnext") == {"pii_credit_cards": 1}
    place %= len(number) - len(prefix)
    place += len(prefix)
    wrong = number[:place] + str((int(number[place]) + change) % 10) + number[place + 1 :]
    assert "pii_credit_cards" not in found_numbers(f"№ {grouped(wrong, separator)}\nnext")


@pytest.mark.parametrize(
    "text",
    [
        "https://x.org/4111111111111111", "file_4111111111111111.jpg", "0.4111111111111111", "1 4111 1111 1111 1111",
        "4111-1111 1111-1111", "1234567812345670", "9780306406157",  # no issuer; ISBN
    ],
)  # fmt: skip
def test_no_cards(found_numbers: Callable, text: str) -> None:
    assert "pii_credit_cards" not in found_numbers(text)


# ---- accounts ---------------------------------------------------------------------------------------------

#: Examples of the register (SWIFT, IBAN registry).
ACCOUNTS = [
    "CH93 0076 2011 6238 5295 7", "FR14 2004 1010 0505 0001 3M02 606", "GB29 NWBK 6016 1331 9268 19", "NO93 8601 1117 947",
    "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
]  # fmt: skip


@pytest.mark.parametrize("account", ACCOUNTS)
def test_accounts(found_numbers: Callable, account: str) -> None:
    compact = account.replace(" ", "")
    assert length_of(compact[:2]) == len(compact)
    for written in (account, compact, account.replace(" ", "-")):
        for frame in ("{} BIC COBADEFFXXX", "({}).", "{}\nNext"):
            assert found_numbers(frame.format(written)) == {"pii_ibans": 1}
        wrong = written[:-1] + ("1" if written[-1] != "1" else "2")
        assert "pii_ibans" not in found_numbers(f"IBAN {wrong}")
        assert (
            "pii_ibans" not in found_numbers(f"x{written}")
            and "pii_ibans" not in found_numbers(f"{written}x")
            and "pii_ibans" not in found_numbers(f"{written}7")
        )


@given(st.sampled_from(["DE", "NO", "PL", "SE", "SA", "LT", "FI"]), DIGITS, st.integers(0, 30), st.integers(1, 9))
def test_any_account(found_numbers: Callable, country: str, digits: str, place: int, change: int) -> None:
    bank = digits[: length_of(country) - 4]
    account = country + mod_97_10.calc_check_digits(bank + country) + bank
    assert found_numbers(f"an {account} zahlen") == ({"pii_ibans": 1} if iban.is_valid(account, check_country=False) else {})
    place = 4 + place % len(bank)
    wrong = account[:place] + str((int(account[place]) + change) % 10) + account[place + 1 :]
    assert "pii_ibans" not in found_numbers(f"an {wrong} zahlen")


# ---- national numbers -------------------------------------------------------------------------------------

ALONE = [
    "54362315K", "54362315-K", "X2482300W", "X-2482300-W", "RCCMNL83S18D969H", "BOXW310820HNERXN09", "131052-308T",
    "2 95 10 99 126 111 93", "295109912611193", "360426199101010071", "390.533.447-05", "971013-9019902", "756.9217.0769.85",
    "85.07.30-033.28", "151086 95088", "1-2345-45678-78-1", "19880320-0016",
]  # fmt: skip
NAMED = [
    "BSN 111222333", "Burgerservicenummer: 1112.22.333", "PESEL: 44051401359", "nr PESEL 44051401359", "CPF nº 39053344705",
    "Steuer-ID: 36 574 261 809", "Aadhaar number 2341 2341 2346", "NHS number: 943 476 5870", "personnummer 880320-0016",
    "T.C. Kimlik No: 17291716060", "fødselsnummer: 15108695088", "ID number 7503305044089", "isikukood 36805280109",
    "asmens kodas 33309240064", "rodné číslo: 710319/2745", "CNP 1630615123457", "ЕГН: 8032056031", "OIB: 33392005961",
    "PPS number: 6433435F", "SV-Nr. 1237 010180", "kt. 120174-3399", "TFN: 123 456 782", "РНОКПП 1759013776", "AMKA: 01013099997",
    "マイナンバー：6214 9832 0257", "ИНН: 123456789047", "RUT: 12.531.909-2", "NIF 123 456 789",
]  # fmt: skip


def test_national_numbers_that_tell_by_themselves(measure_step: Callable) -> None:
    for frame in ("his number is {}, he says", "({})", "Id: {}\n"):
        columns, _ = measure_step("pii", {}, [frame.format(text) for text in ALONE])
        assert columns == {name: [name == "pii_national_ids"] * len(ALONE) for name in COLUMNS}
    others = [frame.format(text) for text in ALONE for frame in ("https://x.org/{}", "{}_b")]
    for text in ALONE:
        places = [place for place, sign in enumerate(text) if sign.isdigit()][-3:]
        others += [f"number {text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}," for place in places]
    assert measure_step("pii", {}, others)[0]["pii_national_ids"] == [0] * len(others)


def test_national_numbers_after_a_word(measure_step: Callable) -> None:
    texts = [frame.format(text) for text in NAMED for frame in ("{}", "Ihre {}.")]
    columns, _ = measure_step("pii", {}, texts)
    assert columns == {name: [name == "pii_national_ids"] * len(texts) for name in COLUMNS}
    others = ["order " + re.search(r"\d.*", text)[0] for text in NAMED]
    for text in NAMED:
        last = max(place for place, sign in enumerate(text) if sign.isdigit()) - 2 * text.startswith("kt.")  # the last is the century
        others.append(text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :])
    assert measure_step("pii", {}, others)[0]["pii_national_ids"] == [0] * len(others)


@pytest.mark.parametrize("entry", [entry for entry in IDS if entry.alone and "." in entry.check], ids=lambda entry: entry.check)
@settings(max_examples=8)
@given(st.data())
def test_any_number_of_a_form_has_a_verdict(found_numbers: Callable, entry: NationalId, data: st.DataObject) -> None:
    """Numbers on which stdnum itself raises have a verdict: 110200... is of no county of China in its register."""
    number = data.draw(st.from_regex(entry.alone, fullmatch=True))
    try:
        valid = import_module(f"stdnum.{entry.check}").is_valid(number)
    except LookupError:
        valid = False
    assert found_numbers(f"see {number}.").get("pii_national_ids", 0) >= valid


# ---- Secrets by format. The examples are assembled here from made-up parts, so that no scanner takes this file for a leak.

RANDOM = random.Random(7)


def some(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(RANDOM.choice(alphabet) for _ in range(length))


HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + "234567"
TOKENS = [
    "AKIA" + some(16, UPPER), "ASIA" + some(16, UPPER), "ghp_" + some(36), "ghs_" + some(36), "github_pat_" + some(82),
    "glpat-" + some(20), "xoxb-" + some(12, "123456789") + "-" + some(12, "123456789") + "-" + some(24),
    "xapp-1-" + some(11, UPPER) + "-" + some(13, "123456789") + "-" + some(64, HEX), "AIza" + some(35), "GOCSPX-" + some(28),
    "ya29." + some(100), "sk_live_" + some(24), "rk_test_" + some(24), "whsec_" + some(32), "sq0atp-" + some(22), "sq0csp-" + some(43),
    "shpat_" + some(32, HEX), "SK" + some(32, HEX), "SG." + some(22) + "." + some(43), "key-" + some(32, HEX),
    "sk-" + some(20) + "T3BlbkFJ" + some(20), "sk-proj-" + some(74) + "T3BlbkFJ" + some(74), "sk-ant-api03-" + some(95),
    "hf_" + some(34, string.ascii_letters), "npm_" + some(36), "pypi-AgE" + some(150), "rubygems_" + some(48, HEX),
    "dop_v1_" + some(64, HEX), "dapi" + some(32, HEX), "dckr_pat_" + some(27), "hvs." + some(90), "dp.pt." + some(43),
    "glsa_" + some(32) + "_" + some(8, HEX), "NRAK-" + some(27, string.ascii_uppercase), "ATATT3" + some(186),
    "PMAK-" + some(24, HEX) + "-" + some(34, HEX), "lin_api_" + some(40), "ntn_" + some(11, "123456789") + some(35),
    "AGE-SECRET-KEY-1" + some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
]  # fmt: skip


def web_token() -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890"})
    ]
    return ".".join([*parts, some(43)])


def test_tokens(measure_step: Callable) -> None:
    tokens = [*TOKENS, web_token()]
    for frame in ("{}", 'key = "{}"', "é {} ", "Authorization: Bearer {}\n", "https://x.org/?key={}&a=1"):
        columns, new = measure_step("pii", {}, [frame.format(token) for token in tokens])
        assert columns["pii_secrets"] == [1] * len(tokens) and new == [frame.format("<SECRET>")] * len(tokens)
    others = [f"x{token} {token.replace('.', '')[:12]}" for token in tokens] + [token[:9] for token in tokens]
    columns, new = measure_step("pii", {}, others)
    assert columns["pii_secrets"] == [0] * len(others) and new == others


PARTS = [
    ("https://hooks.slack.com/services/", "T" + some(8, UPPER) + "/B" + some(8, UPPER) + "/" + some(24), " x"),
    ("https://discord.com/api/webhooks/", some(18, "123456789") + "/" + some(68), ""),
    ("AccountName=x;AccountKey=", some(86) + "==", ";EndpointSuffix=core"),
    ("https://api.telegram.org/bot123456789:AA", some(33), "/getMe"),
    ("postgres://admin:", "correct.horse-9", "@db.internal:5432/x"),
    ("ftp://joe:", "hunter22", "@93.184.216.34/"),
]


def test_only_the_secret_part_goes(measure_step: Callable) -> None:
    columns, new = measure_step("pii", {"ipv4": None}, [before + secret + after for before, secret, after in PARTS])
    assert columns["pii_secrets"] == [1] * len(PARTS) and new == [f"{before}<SECRET>{after}" for before, _, after in PARTS]


@pytest.mark.parametrize(("kind", "newline"), [("", "\n"), ("RSA ", "\\n"), ("OPENSSH ", " ")])
def test_private_keys(measure_step: Callable, kind: str, newline: str) -> None:
    lines = [some(64) for _ in range(12)] + [some(30) + "=="]
    key = newline.join([f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"])
    columns, new = measure_step("pii", {}, [f"Here: {key} and more", f"{key}\n{key}\n"])
    assert columns["pii_secrets"] == [1, 2] and new == ["Here: <SECRET> and more", "<SECRET>\n<SECRET>\n"]


def test_a_key_with_headers_and_a_key_without_end(measure_step: Callable) -> None:
    body = "\n".join(some(64) for _ in range(5))
    headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n"
    texts = [f"-----BEGIN RSA PRIVATE KEY-----\n{headers}{body}\n-----END RSA PRIVATE KEY-----", f"-----BEGIN PRIVATE KEY-----\n{body}"]
    columns, new = measure_step("pii", {}, texts)
    assert columns["pii_secrets"] == [1, 1] and new == ["<SECRET>", "<SECRET>"]


NOTHING = [
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
    "commit 8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83 and 550e8400-e29b-41d4-a716-446655440000",
    "sha512-Qm9vbS4uLmJvb20hYm9vbS4uLmJvb20hYm9vbS4uLmJvb20hYm9vbS4uLmJvb20hYm9vbS4uLmJvb20hYm9vbQ==",
    "ftp://user:password@host/x http://user:pass@host http://user:$PASSWORD@host http://user:xxxx@host https://x:y",
    "https://example.org:8080/@name http://a.b/c:d@e git@github.com:a/b.git http://host/path:with@sign",
    "the key-value store, sk_live_ and ghp_xxx, eyJhbGciOiJIUzI1NiJ9.", "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA",
]  # fmt: skip


def test_no_secrets(measure_step: Callable) -> None:
    assert measure_step("pii", {}, NOTHING)[0]["pii_secrets"] == [0] * len(NOTHING)
