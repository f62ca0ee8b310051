from collections.abc import Callable

import pytest
from datatrove.pipeline.formatters.pii import PIIFormatter

EMAILS = [
    ("write to jane.doe+news@mail.example-shop.co.uk today", 1),
    ("<a@b.de>, (c@d.org); mailto:e@f.net", 3),
    ("o'hara@x.ie and x_y-z@sub.domain.info.", 2),
    ("someone@example.com and me@test.example.org", 0),  # reserved for examples
    ("a @ b, @user, user@localhost, a@b, 5@3.4", 0),
    ("@" * 50 + "." * 50, 0),
]
ADDRESSES = [
    ("host 93.184.216.34 answered", 1),
    ("http://93.184.216.34/index.html and 93.184.216.34:8080", 2),
    ("ends with 93.184.216.34.", 1),
    ("192.168.0.1 10.0.0.1 127.0.0.1 172.16.3.4 169.254.1.1 0.0.0.0 255.255.255.255", 0),  # nobody's
    ("192.0.2.1 198.51.100.7 203.0.113.9", 0),  # for documentation
    ("300.1.1.1 93.184.216 93.184.216.34.5 1.93.184.216.34", 0),
    ("version 91.0.4472.124, v92.1.44.77, release: 10.15.77.21, Chrome/91.0.4472.124", 0),
    ("package-93.184.216.34 and 93.184.216.34-beta, 1.2.3.4, section 12.34.56.78, § 93.184.216.34", 0),
    ("93.184.016.34", 0),  # leading zeros
    ("12.6.2. Autotools\n12.6.2.1. Compiling", 0),
    ("224.0.0.251 239.255.255.250", 0),  # multicast
]


@pytest.mark.parametrize(("text", "count"), EMAILS)
def test_emails(measure_step: Callable, text: str, count: int) -> None:
    columns, (new,) = measure_step("pii", {}, [text])
    assert columns["pii_emails"] == [count] and columns["pii_ipv4"] == [0]
    assert new.count("email@example.com") == count if count else new == text


@pytest.mark.parametrize(("text", "count"), ADDRESSES)
def test_addresses(measure_step: Callable, text: str, count: int) -> None:
    columns, (new,) = measure_step("pii", {}, [text])
    assert columns["pii_ipv4"] == [count] and columns["pii_emails"] == [0]
    assert new.count("192.0.2.1") == count if count else new == text


def test_a_second_pass_finds_nothing(measure_step: Callable, texts: list[str]) -> None:
    texts = [*texts, *(text for text, _ in EMAILS + ADDRESSES)]
    first, once = measure_step("pii", {}, texts)
    again, twice = measure_step("pii", {}, once)
    assert once == twice and sum(first["pii_emails"]) > 0
    assert sum(again["pii_emails"]) == sum(again["pii_ipv4"]) == 0


def test_placeholders_are_a_choice(measure_step: Callable) -> None:
    text = "a@b.de at 93.184.216.34"
    columns, (new,) = measure_step("pii", {"email": "<EMAIL>", "ipv4": None}, [text])
    assert new == "<EMAIL> at 93.184.216.34"
    assert columns == {"pii_emails": [1], "pii_ipv4": [1]}


def test_datatrove_finds_the_same_emails_in_real_documents(measure_step: Callable, texts: list[str]) -> None:
    reference = PIIFormatter(email_replacement="email@example.com", remove_ips=False)
    _, ours = measure_step("pii", {"ipv4": None}, texts)
    assert [text for text, new in zip(texts, ours) if reference.format(text) != new] == []


def test_hostile_texts_take_linear_time(measure_step: Callable) -> None:
    texts = ["a." * 200_000 + "@", "a!" * 200_000 + "@", "1." * 200_000 + "1.1.1", "a@" + "b." * 200_000, "a@b" * 100_000]
    _, new = measure_step("pii", {}, texts)
    assert len(new) == len(texts)
