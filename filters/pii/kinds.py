"""The table of kinds. The first kind that takes a piece of text has it: a later kind's finds that touch it do not count.

So a password in a URL is not the local part of an email address, and the digits of an account number are no phone number.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """`module` of this package has `find(texts, config) -> Spans`; `placeholder` is never found by any kind."""

    name: str  # of the option
    column: str
    module: str
    placeholder: str
    description: str


KINDS = (
    Kind("secret", "pii_secrets", "secrets", "<SECRET>", "a key, token or password that its format gives away"),
    Kind("email", "pii_emails", "emails", "email@example.com", "an email address"),
    Kind("iban", "pii_ibans", "ibans", "<IBAN>", "an international bank account number"),
    Kind("credit_card", "pii_credit_cards", "credit_cards", "<CREDIT_CARD>", "a payment card's number"),
    Kind("national_id", "pii_national_ids", "national_ids", "<NATIONAL_ID>", "a person's number with check digits, of 30 countries"),
    Kind("ipv6", "pii_ipv6", "ipv6", "2001:db8::1", "a public IPv6 address"),
    Kind("ipv4", "pii_ipv4", "ipv4", "192.0.2.1", "a public IPv4 address"),
    Kind("phone", "pii_phones", "phones", "+1-202-555-0100", "a phone number"),
)
