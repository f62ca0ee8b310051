"""Secrets by format. The examples are made up here, in pieces, so that no scanner takes this file for a leak."""

import base64
import json
import random
import re
import string
from collections.abc import Callable

import pytest

from corpusmill.filters.pii import FORMATS, PREFIXES, SECRET

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


@pytest.mark.parametrize("token", [*TOKENS, web_token()], ids=lambda token: token[:8])
def test_tokens(measure_step: Callable, token: str) -> None:
    texts = [
        token,
        f'key = "{token}"',
        f"é{token} ".replace("é", "é "),
        f"Authorization: Bearer {token}\n",
        f"https://x.org/?key={token}&a=1",
    ]
    columns, new = measure_step("pii", {}, texts)
    assert columns["pii_secrets"] == [1] * len(texts)
    assert new == [text.replace(token, "<SECRET>") for text in texts]
    longer, shorter = f"x{token} {token.replace('.', '')[:12]}", token[:9]
    columns, new = measure_step("pii", {}, [longer, shorter])
    assert columns["pii_secrets"] == [0, 0] and new == [longer, shorter]


PARTS = [
    ("https://hooks.slack.com/services/", "T" + some(8, UPPER) + "/B" + some(8, UPPER) + "/" + some(24), " x"),
    ("https://discord.com/api/webhooks/", some(18, "123456789") + "/" + some(68), ""),
    ("AccountName=x;AccountKey=", some(86) + "==", ";EndpointSuffix=core"),
    ("https://api.telegram.org/bot123456789:", "AA" + some(33), "/getMe"),
    ("postgres://admin:", "correct.horse-9", "@db.internal:5432/x"),
    ("ftp://joe:", "hunter22", "@93.184.216.34/"),
]


@pytest.mark.parametrize(("before", "secret", "after"), PARTS)
def test_only_the_secret_part_goes(measure_step: Callable, before: str, secret: str, after: str) -> None:
    columns, (new,) = measure_step("pii", {"ipv4": None}, [before + secret + after])
    assert columns["pii_secrets"] == [1] and new == before + "<SECRET>" + after


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
@pytest.mark.parametrize("newline", ["\n", "\\n", " "])
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


@pytest.mark.parametrize("text", NOTHING)
def test_no_secrets(measure_step: Callable, text: str) -> None:
    columns, _ = measure_step("pii", {}, [text])
    assert columns["pii_secrets"] == [0]


def test_the_scan_knows_the_beginning_of_every_format() -> None:
    for token in [*TOKENS, web_token(), *(before + secret + after for before, secret, after in PARTS)]:
        matches = list(re.compile(SECRET.pattern).finditer(token.encode()))
        assert matches and matches[0][0][:3].decode() in PREFIXES
    assert len(FORMATS) > 35 and all(len(prefix) == 3 for prefix in PREFIXES)
