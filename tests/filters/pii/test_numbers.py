"""Cards, accounts and national numbers: the libraries' own examples are found, with another check digit they are not."""

import re
import string
from collections.abc import Callable
from importlib import import_module

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn, numdb, verhoeff
from stdnum.iso7064 import mod_97_10

from corpusmill.filters.pii import IDS, NationalId, length_of

DIGITS = st.text(string.digits, min_size=30, max_size=30)


@pytest.fixture(scope="module")
def found(measure_step: Callable) -> Callable[[str], dict[str, int]]:
    """Counts by kind of what a text holds, without zeros."""

    def count(text: str) -> dict[str, int]:
        columns, _ = measure_step("pii", {}, [text])
        return {name: number for name, (number,) in columns.items() if number}

    return count


# ---- cards ------------------------------------------------------------------------------------------------

#: Published test numbers of the payment industry (Stripe, PayPal and Adyen print the same).
TEST_CARDS = [
    "4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444", "5105105105105100", "2223003122003222",
    "2221000000000009", "378282246310005", "371449635398431", "6011111111111117", "6011000990139424", "30569309025904", "38520000023237",
    "36227206271667", "3530111333300000", "3566002020360505", "6200000000000005",
]  # fmt: skip


def grouped(number: str, separator: str) -> str:
    sizes = {14: (4, 6, 4), 15: (4, 6, 5), 16: (4, 4, 4, 4), 19: (4, 4, 4, 4, 3)}[len(number)]
    parts, rest = [], number
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return separator.join(parts)


@pytest.mark.parametrize("number", TEST_CARDS)
def test_cards(found: Callable, number: str) -> None:
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    for separator in ("", " ", "-"):
        for frame in ("{}", "card {}.", "({}), valid", "№ {}\nnext", "é{} é".replace("é{", "é {")):
            assert found(frame.format(grouped(number, separator))) == {"pii_credit_cards": 1}
            assert found(frame.format(grouped(wrong, separator))) == {}


CARD_PREFIXES = {"4": 16, "51": 16, "55": 16, "2221": 16, "2720": 16, "34": 15, "37": 15, "6011": 16, "65": 16, "3589": 16, "36": 14}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(CARD_PREFIXES)), DIGITS, st.integers(0, 20), st.integers(1, 9))
def test_any_card(found: Callable, prefix: str, digits: str, place: int, change: int) -> None:
    number = (prefix + digits)[: CARD_PREFIXES[prefix] - 1]
    number += luhn.calc_check_digit(number)
    assume(len(set(number)) > 1)
    assert found(f"card {number},") == {"pii_credit_cards": 1}
    place %= len(number) - len(prefix)
    place += len(prefix)
    wrong = number[:place] + str((int(number[place]) + change) % 10) + number[place + 1 :]
    assert "pii_credit_cards" not in found(f"card {wrong},")


@pytest.mark.parametrize(
    "text",
    [
        "https://x.org/4111111111111111", "id=4111111111111111", "file_4111111111111111.jpg", "0.4111111111111111",
        "4111111111111111.25",
        "4111 1111 1111 1111 4242 4242 4242 4242", "1 4111 1111 1111 1111", "4111 1111 11111111", "4111-1111 1111-1111",
        "x4111111111111111",
        "1234567812345670", "0000000000000000", "9780306406157", "4006381333931",  # no issuer; ISBN; EAN of Germany
        "4111111111111111a", "411111111111111", "41111111111111111",
    ],
)  # fmt: skip
def test_no_cards(found: Callable, text: str) -> None:
    assert "pii_credit_cards" not in found(text)


# ---- accounts ---------------------------------------------------------------------------------------------

#: Examples of the register (SWIFT, IBAN registry).
ACCOUNTS = [
    "AD12 0001 2030 2003 5910 0100", "AT61 1904 3002 3457 3201", "BE68 5390 0754 7034", "CH93 0076 2011 6238 5295 7",
    "DE89 3704 0044 0532 0130 00", "ES91 2100 0418 4502 0005 1332", "FR14 2004 1010 0505 0001 3M02 606", "GB29 NWBK 6016 1331 9268 19",
    "IT60 X054 2811 1010 0000 0123 456", "NL91 ABNA 0417 1643 00", "NO93 8601 1117 947", "PL61 1090 1014 0000 0712 1981 2874",
    "SE45 5000 0000 0583 9825 7466", "MT84 MALT 0110 0001 2345 MTLC AST0 01S", "BR15 0000 0000 0000 1093 2840 814P 2",
    "SA03 8000 0000 6080 1016 7519",
]  # fmt: skip


@pytest.mark.parametrize("account", ACCOUNTS)
def test_accounts(found: Callable, account: str) -> None:
    compact = account.replace(" ", "")
    assert length_of(compact[:2].encode()) == len(compact)
    for written in (account, compact, account.replace(" ", "-")):
        for frame in ("{}", "IBAN: {}", "{} BIC COBADEFFXXX", "({}).", "{}\nNext"):
            assert found(frame.format(written)) == {"pii_ibans": 1}
        wrong = written[:-1] + ("1" if written[-1] != "1" else "2")
        assert "pii_ibans" not in found(f"IBAN {wrong}")
        assert (
            "pii_ibans" not in found(f"x{written}") and "pii_ibans" not in found(f"{written}x") and "pii_ibans" not in found(f"{written}7")
        )


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["DE", "NO", "PL", "SE", "SA", "LT", "FI"]), DIGITS, st.integers(0, 30), st.integers(1, 9))
def test_any_account(found: Callable, country: str, digits: str, place: int, change: int) -> None:
    bank = digits[: length_of(country.encode()) - 4]
    account = country + mod_97_10.calc_check_digits(bank + country) + bank
    assert found(f"an {account} zahlen") == ({"pii_ibans": 1} if iban.is_valid(account, check_country=False) else {})
    place = 4 + place % len(bank)
    wrong = account[:place] + str((int(account[place]) + change) % 10) + account[place + 1 :]
    assert "pii_ibans" not in found(f"an {wrong} zahlen")


def test_every_country_of_the_register_has_a_length() -> None:
    countries = [a + b for a in string.ascii_uppercase for b in string.ascii_uppercase if numdb.get("iban").info(a + b)[0][1]]
    assert len(countries) > 75 and all(15 <= length_of(country.encode()) <= 34 for country in countries)
    assert length_of(b"XX") == length_of(b"US") == 0


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


@pytest.mark.parametrize("text", ALONE)
def test_national_numbers_that_tell_by_themselves(found: Callable, text: str) -> None:
    for frame in ("{}", "his number is {}, he says", "({})", "Id: {}\n"):
        assert found(frame.format(text)) == {"pii_national_ids": 1}
    for place in [place for place, sign in enumerate(text) if sign.isdigit()][-3:]:
        wrong = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        assert "pii_national_ids" not in found(f"number {wrong},")
    assert "pii_national_ids" not in found(f"https://x.org/{text}") and "pii_national_ids" not in found(f"{text}_b")


@pytest.mark.parametrize("text", NAMED)
def test_national_numbers_after_a_word(found: Callable, text: str) -> None:
    assert found(text) == {"pii_national_ids": 1} and found(f"Ihre {text}.") == {"pii_national_ids": 1}
    last = max(place for place, sign in enumerate(text) if sign.isdigit()) - 2 * text.startswith("kt.")  # the last digit is the century
    wrong = text[:last] + str((int(text[last]) + 1) % 10) + text[last + 1 :]
    assert "pii_national_ids" not in found(wrong)
    number = re.search(r"\d.*", text)[0]
    assert "pii_national_ids" not in found(f"order {number}")


@settings(deadline=None, max_examples=40)
@given(DIGITS, st.integers(1, 9))
def test_any_aadhaar(found: Callable, digits: str, change: int) -> None:
    number = str(2 + int(digits[0]) % 8) + digits[1:11]
    number += verhoeff.calc_check_digit(number)
    assume(number != number[::-1])  # palindromes are not given out
    assert found(f"Aadhaar: {number[:4]} {number[4:8]} {number[8:]}") == {"pii_national_ids": 1}
    assert found(f"Aadhaar: {number[:-1]}{(int(number[-1]) + change) % 10}") == {}


@pytest.mark.parametrize("entry", IDS, ids=lambda entry: entry.module)
@given(st.data())
def test_any_number_of_a_form_has_a_verdict(found: Callable, entry: NationalId, data: st.DataObject) -> None:
    """Also where stdnum itself raises: 110200... is of no county of China that its register has."""
    number = data.draw(st.from_regex(re.compile(entry.form, re.ASCII), fullmatch=True))
    word = re.split(r"\\|\||\?|\(", entry.words)[0]
    try:
        valid = import_module(f"stdnum.{entry.module}").is_valid(number)
    except LookupError:
        valid = False
    assert found(f"{word} {number}.").get("pii_national_ids", 0) >= (valid and not entry.words)


def test_every_number_of_the_table_has_a_check() -> None:
    assert all(callable(import_module(f"stdnum.{entry.module}").is_valid) for entry in IDS)
    assert len({entry.module.partition(".")[0] for entry in IDS}) >= 30
