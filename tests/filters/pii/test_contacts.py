"""Email and internet addresses, against tables by hand and the standard library."""

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

EMAILS = [
    ("write to jane.doe+news@mail.example-shop.co.uk today", 1),
    ("<a@b.de>, (c@d.org); mailto:e@f.net", 3),
    ("o'hara@x.ie and x_y-z@sub.domain.info.", 2),
    ("someone@example.com and me@test.example.org", 0),  # reserved for examples
    ("a @ b, @user, user@localhost, a@b, 5@3.4", 0),
    ("@" * 50 + "." * 50, 0),
    ("пишите на ivan@почта.рф или ivan@pochta.ru", 1),
    ("x" * 600 + "@a.de " + ".".join(["y" * 64] * 9) + "@b.de", 1),
]
IPV4 = [
    ("host 93.184.216.34 answered", 1),
    ("http://93.184.216.34/index.html and 93.184.216.34:8080", 2),
    ("ends with 93.184.216.34.", 1),
    ("地址93.184.216.34。", 1),
    ("192.168.0.1 10.0.0.1 127.0.0.1 172.16.3.4 169.254.1.1 0.0.0.0 255.255.255.255", 0),  # nobody's
    ("192.0.2.1 198.51.100.7 203.0.113.9", 0),  # for documentation
    ("300.1.1.1 93.184.216 93.184.216.34.5 1.93.184.216.34", 0),
    ("version 91.0.4472.124, v92.1.44.77, release: 10.15.77.21, Chrome/91.0.4472.124", 0),
    ("package-93.184.216.34 and 93.184.216.34-beta, 1.2.3.4, section 12.34.56.78, § 93.184.216.34", 0),
    ("93.184.016.34", 0),  # leading zeros
    ("12.6.2. Autotools\n12.6.2.1. Compiling", 0),
    ("224.0.0.251 239.255.255.250", 0),  # multicast
]
IPV6 = [
    ("dns 2001:4860:4860::8888, 2001:4860:4860:0:0:0:0:8844.", 2),
    ("http://[2606:4700:4700::1111]:443/ and 2a00:1450:4001:81b::200e/64", 2),
    ("2001:db8::1 fe80::1 ::1 fc00::1234:1 ff02::1 64:ff9b::1:2 3fff::1:2", 0),  # documentation, local, multicast, translation
    ("12:30:15 at 10:20:30:40, 00:1b:63:84:45:e6, std::vector::add, a::b::c, 2001:2002:2003", 0),
    ("2001:4860:4860::8888::1 2001:4860:4860::88888 x2001:4860:4860::8888 2001:4860:4860::8888g", 0),
    ("2400::", 0),  # fewer groups than three
]


@pytest.mark.parametrize(
    ("column", "placeholder", "text", "count"),
    [
        *(("pii_emails", "email@example.com", *row) for row in EMAILS),
        *(("pii_ipv4", "192.0.2.1", *row) for row in IPV4),
        *(("pii_ipv6", "2001:db8::1", *row) for row in IPV6),
    ],
)
def test_finds(measure_step: Callable, column: str, placeholder: str, text: str, count: int) -> None:
    columns, (new,) = measure_step("pii", {}, [text])
    assert {name: found for name, (found,) in columns.items() if found} == ({column: count} if count else {})
    assert new.count(placeholder) == count if count else new == text


@given(st.integers(0x2000 << 112, (0x3000 << 112) - 1).map(ipaddress.IPv6Address), st.booleans())
def test_any_public_ipv6_address(measure_step: Callable, address: ipaddress.IPv6Address, long: bool) -> None:
    written = address.exploded if long else str(address)
    columns, _ = measure_step("pii", {}, [f"from {written}, port 80"])
    assert columns["pii_ipv6"] == [int(address.is_global and len([group for group in written.split(":") if group]) >= 3)]


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_any_ipv4_address(measure_step: Callable, address: ipaddress.IPv4Address) -> None:
    columns, _ = measure_step("pii", {}, [f"from {address}, port 80"])
    public = address.is_global and not address.is_multicast and any(part >= 32 for part in address.packed)
    assert columns["pii_ipv4"] == [int(public)]
