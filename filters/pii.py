"""Personal data: email addresses and public IPv4 addresses give way to placeholders that are the same everywhere."""

import ipaddress
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

# Lengths are bounded (RFC 5321: 64 for the local part, 63 a label) so that no text takes quadratic time.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
EMAIL = re.compile(
    rf"(?<![A-Za-z0-9._%+-]){_ATOM}{{1,64}}(?:\.{_ATOM}{{1,64}}){{0,8}}@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.){{1,8}}[A-Za-z]{{2,63}})(?![A-Za-z0-9-])"
)
IPV4 = re.compile(r"(?<![\w.\-+])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-+])(?!\.\d)")
#: Before a dotted number these words say that it is a version or a section.
VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|ver|vers|version|versions|release|rev|revision|build|firmware|driver|update|patch|section|sections|sec|chapter|clause|"
    r"article|figure|fig|table|rule|step)\b\.?|§+|[A-Za-z0-9_]/)[\s:=#(]*$",
    re.IGNORECASE,
)
SMALL = 32  # parts of versions and sections are mostly below this
CONTEXT = 24  # characters before a number in which such a word may stand
#: Names that RFC 2606 reserves for examples belong to nobody.
EXAMPLE_DOMAINS = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)


def is_public_ipv4(address: str, before: str) -> bool:
    """Whether a dotted number is an address of somebody, given the text before it.

    Not so: what `ipaddress` calls multicast or not global, numbers with leading zeros, numbers after a word for a version or
    section or directly after `name/`, and four parts that are all small (12.6.2.1, 8.8.8.8), which are versions, sections or
    public resolvers: of all addresses 0.02% are so.
    """
    parts = address.split(".")
    if all(int(part) < SMALL for part in parts) or any(len(part) > 1 and part[0] == "0" for part in parts):
        return False
    try:
        number = ipaddress.IPv4Address(address)
    except ipaddress.AddressValueError:
        return False
    return number.is_global and not number.is_multicast and not VERSION_BEFORE.search(before)


class PiiConfig(Config):
    """Emails and public IPv4 addresses."""

    email: str | None = Field("email@example.com", description="What stands for an email address; null leaves them as they are.")
    ipv4: str | None = Field("192.0.2.1", description="What stands for a public IPv4 address; null leaves them as they are.")


class Pii(Step):
    Config = PiiConfig
    rewrites = True

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {"pii_emails": pa.int64(), "pii_ipv4": pa.int64()}

    def measure(self, batch: Batch) -> Measured:
        # a linear search finds the few texts that can hold any
        emails = np.asarray(pc.match_substring(batch.text, "@"))
        addresses = np.asarray(pc.match_substring_regex(batch.text, r"\d\.\d{1,3}\.\d{1,3}\.\d"))
        counts = np.zeros((2, len(batch)), np.int64)
        changed: dict[int, str] = {}
        for place in np.nonzero(emails | addresses)[0].tolist():
            text = batch.text[place].as_py()
            new_text, counts[0, place], counts[1, place] = self.rewrite(text)
            if new_text != text:
                changed[place] = new_text
        return Measured({"pii_emails": counts[0], "pii_ipv4": counts[1]}, _replaced(batch.text, changed))

    def rewrite(self, text: str) -> tuple[str, int, int]:
        """`(new text, emails found, public IPv4 addresses found)`."""
        emails = addresses = 0

        def email(match: re.Match[str]) -> str:
            nonlocal emails
            if EXAMPLE_DOMAINS.search(match[1]):
                return match[0]
            emails += 1
            return match[0] if self.config.email is None else str(self.config.email)

        def address(match: re.Match[str]) -> str:
            nonlocal addresses
            if not is_public_ipv4(match[0], text[max(0, match.start() - CONTEXT) : match.start()]):
                return match[0]
            addresses += 1
            return match[0] if self.config.ipv4 is None else str(self.config.ipv4)

        text = EMAIL.sub(email, text)
        return IPV4.sub(address, text), emails, addresses


def _replaced(text: pa.Array, changed: dict[int, str]) -> pa.Array:
    """The column with some of its texts replaced."""
    if not changed:
        return text
    mask = np.zeros(len(text), bool)
    places = sorted(changed)
    mask[places] = True
    return pc.replace_with_mask(text, pa.array(mask), pa.array([changed[place] for place in places], pa.large_string()))
