"""The step as a whole: all kinds on one text, overlaps, placeholders, rules, real and hostile documents."""

import random
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from datatrove.pipeline.formatters.pii import PIIFormatter
from pydantic import ValidationError

from corpusmill.filters.pii import KINDS, Pii, PiiConfig
from corpusmill.filters.step import DocumentBatch

#: One text a kind that has one find of this kind and none of another.
ONE_OF_EACH = {
    "pii_secrets": "the key AKIA" + "IOSFODNN7EXAMPLE was revoked",
    "pii_emails": "write to jane.doe@mail.example-shop.co.uk today",
    "pii_ibans": "pay to DE89 3704 0044 0532 0130 00 please",
    "pii_credit_cards": "card 4111 1111 1111 1111 expires 12/27",
    "pii_national_ids": "CPF 390.533.447-05 do titular",
    "pii_ipv6": "host 2606:4700:4700::1111 answered",
    "pii_ipv4": "host 93.184.216.34 answered",
    "pii_phones": "call (415) 923-4567 now",
}
COLUMNS = [kind.column for kind in KINDS]


def test_each_kind_is_counted_and_replaced(measure_step: Callable) -> None:
    columns, new = measure_step("pii", {}, list(ONE_OF_EACH.values()))
    assert set(columns) == set(COLUMNS) == set(ONE_OF_EACH)
    for place, found in enumerate(ONE_OF_EACH):
        assert {name: column[place] for name, column in columns.items()} == {name: int(name == found) for name in COLUMNS}
    for kind in KINDS:
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


def test_all_in_one_text_and_several_texts(measure_step: Callable) -> None:
    together = "\n".join(ONE_OF_EACH.values())
    columns, (first, empty, third) = measure_step("pii", {}, [together, "", "é" + together + " é"])
    assert all(column == [1, 0, 1] for column in columns.values())
    assert empty == "" and third == "é" + first + " é"
    assert all(kind.placeholder in first for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_can_be_switched_off_and_is_still_counted(measure_step: Callable, kind) -> None:
    text = ONE_OF_EACH[kind.column]
    columns, new = measure_step("pii", {kind.name: None}, [text])
    assert new == [text] and columns[kind.column] == [1]
    _, (new,) = measure_step("pii", {kind.name: "[gone]"}, [text])
    assert "[gone]" in new and kind.placeholder not in new


def test_values_do_not_depend_on_neighbours_or_order(measure_step: Callable) -> None:
    texts = [text[start : len(text) - stop] for text in ONE_OF_EACH.values() for start in range(0, 20, 3) for stop in range(0, 20, 3)]
    columns, new = measure_step("pii", {}, texts)
    order = list(range(len(texts)))
    random.Random(5).shuffle(order)
    again, other = measure_step("pii", {}, [texts[place] for place in order])
    assert other == [new[place] for place in order]
    assert all(again[name] == [columns[name][place] for place in order] for name in columns)
    for place in range(0, len(texts), 7):
        alone, (single,) = measure_step("pii", {}, [texts[place]])
        assert single == new[place] and all(alone[name] == [columns[name][place]] for name in columns)


def test_a_slice_of_a_column(measure_step: Callable) -> None:
    texts = list(ONE_OF_EACH.values())
    step = Pii(PiiConfig())
    whole = pa.array(["a@b.de", *texts, "c@d.fr"], pa.large_string())
    measured = step.measure(DocumentBatch(pa.table({}), whole.slice(1, len(texts)), "words"))
    columns, new = measure_step("pii", {}, texts)
    assert measured.text.to_pylist() == new and {name: list(column) for name, column in measured.columns.items()} == columns


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
    kind = next(kind for kind in KINDS if kind.column == column)
    _, left = measure_step("pii", {kind.name: None}, [text])  # a later kind does not take what an earlier one leaves as it is
    assert left == [text]


def test_a_second_pass_finds_nothing(measure_step: Callable, texts: list[str]) -> None:
    first, once = measure_step("pii", {}, [*texts, *ONE_OF_EACH.values()])
    again, twice = measure_step("pii", {}, once)
    assert once == twice and all(sum(column) > 0 for column in first.values())
    assert all(sum(column) == 0 for column in again.values())


def test_datatrove_finds_the_same_emails_in_real_documents(measure_step: Callable, texts: list[str]) -> None:
    reference = PIIFormatter(email_replacement="email@example.com", remove_ips=False)
    _, ours = measure_step("pii", {kind.name: None for kind in KINDS if kind.name != "email"}, texts)
    assert [text for text, new in zip(texts, ours) if reference.format(text) != new] == []


def test_hard_texts_have_values(measure_step: Callable, hard_texts: list[str]) -> None:
    columns, new = measure_step("pii", {}, hard_texts)
    assert new == hard_texts and all(sum(column) == 0 for column in columns.values())


HOSTILE = [
    "1", "1 ", "1-", "12 34 ", "1.", "+1 ", "(1", "a.", "a!", "a@", "@", "a@b", "a@b.", ":", "1:", "::1", "2001:", "A1", "AB12", "DE89 ",
    "A1-", "AKIA", "eyJ.", "eyJa", "eyJaaaaaaaaaaaa.", "://a:", "://a:b@", "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----A ",
    "-", "sk-a", ":AA", "Tel. 1", "tel 123456789 ", "PESEL 44051401358 ", "4111111111111112 ", "4111 1111 1111 1112 ", "0.1 2",
    "12345678Z ", "1\u00a0", "é1",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_texts_take_linear_time(measure_step: Callable, unit: str) -> None:
    """Four times the text takes nowhere near sixteen times the time."""
    measure_step("pii", {}, [unit])
    times = []
    for size in (150_000, 600_000):
        start = time.process_time()
        measure_step("pii", {}, [unit * (size // len(unit)) + "@1"])
        times.append(time.process_time() - start)
    assert times[1] < 8 * times[0] + 0.5


def test_limits_are_rules(measure_step: Callable) -> None:
    assert Pii(PiiConfig()).rules == ()
    (rule,) = Pii(PiiConfig(most={"email": 20})).rules
    assert (rule.name, rule.column, rule.comparison, rule.threshold) == ("pii_emails", "pii_emails", ">", 20)
    assert rule.failing(pa.array([0, 20, 21])).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"most": {"emails": 3}}, "most.emails: no such kind (expected one of secret, email,"),
        ({"most": {"email": -1}}, "most.email: -1 is below 0"),
        ({"phone_regions": ["USA"]}, "phone_regions: 'USA' is no country with a numbering plan"),
    ],
)
def test_bad_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValidationError) as error:
        PiiConfig(**options)
    assert sentence in str(error.value)
