"""Keys, tokens and passwords that their format gives away, as public rule sets (gitleaks, detect-secrets) list them.

Only formats with a fixed beginning or frame count. That a string looks random says nothing: hashes, commit numbers and identifiers do too.
"""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from corpusmill.filters.pii import scan
from corpusmill.filters.pii.spans import Spans, Texts

#: Each begins with a literal of three characters or more, which the scan looks for. Where a group is named, only that is the secret.
#: Lengths are bounded, so that each attempt takes bounded time.
FORMATS = {
    "Amazon access key": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    "GitHub token": r"(?:ghp|gho|ghu|ghs|ghr)_[0-9A-Za-z]{36,251}",
    "GitHub fine-grained token": r"github_pat_[0-9A-Za-z_]{82}",
    "GitLab token": r"(?:glpat|gldt|glptt|glrt|glsoat|glcbt)-[0-9A-Za-z_-]{20,64}",
    "Slack token": r"xox[abposr]-(?:\d-)?[0-9A-Za-z-]{10,200}",
    "Slack app token": r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-z0-9]{20,100}",
    "Slack webhook": r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<hook>T[A-Z0-9]{5,20}/[A-Za-z0-9+/]{20,80})",
    "Discord webhook": r"discord(?:app)?\.com/api/webhooks/(?P<webhook>\d{17,20}/[\w-]{60,80})",
    "Google API key": r"AIza[\w-]{35}",
    "Google OAuth secret": r"GOCSPX-[\w-]{28}",
    "Google OAuth token": r"ya29\.[\w-]{30,500}",
    "Stripe key": r"(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{10,99}",
    "Stripe webhook secret": r"whsec_[0-9A-Za-z+/=]{32,99}",
    "Square token": r"(?:sq0atp-[\w-]{22}|sq0csp-[\w-]{43})",
    "Shopify token": r"(?:shpat|shpca|shppa|shpss)_[0-9a-fA-F]{32}",
    "Twilio key": r"SK[0-9a-f]{32}",
    "SendGrid key": r"SG\.[\w-]{22}\.[\w-]{43}",
    "Mailgun key": r"key-[0-9a-f]{32}",
    "OpenAI key": r"sk-(?:(?:proj|svcacct|admin)-[\w-]{20,80})?[\w-]{20,80}T3BlbkFJ[\w-]{20,80}",
    "Anthropic key": r"sk-ant-(?:api|admin)\d\d-[\w-]{80,110}",
    "Hugging Face token": r"(?:hf_|api_org_)[A-Za-z]{34}",
    "npm token": r"npm_[0-9A-Za-z]{36}",
    "PyPI token": r"pypi-AgE[\w-]{50,1000}",
    "RubyGems token": r"rubygems_[0-9a-f]{48}",
    "DigitalOcean token": r"do[por]_v1_[0-9a-f]{64}",
    "Databricks token": r"dapi[0-9a-f]{32}(?:-\d)?",
    "Docker token": r"dckr_pat_[\w-]{27}",
    "HashiCorp Vault token": r"hv[sb]\.[\w-]{24,300}",
    "Doppler token": r"dp\.pt\.[0-9A-Za-z]{43}",
    "Grafana token": r"(?:glsa_[0-9A-Za-z]{32}_[0-9A-Fa-f]{8}|glc_[0-9A-Za-z+/]{32,400}={0,3})",
    "New Relic key": r"NRAK-[A-Z0-9]{27}",
    "Postman key": r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",
    "Linear key": r"lin_api_[0-9A-Za-z]{40}",
    "Notion token": r"ntn_\d{11}[0-9A-Za-z]{35}",
    "Atlassian token": r"ATATT3[\w=-]{180,200}",
    "Age key": r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    "Azure storage key": r"AccountKey=(?P<azure>[0-9A-Za-z+/]{86}==)",
    "JSON web token": r"eyJ[\w-]{10,4000}\.eyJ[\w-]{10,4000}\.(?:[\w-]{10,2000})?",
    "Telegram bot token": r":(?<=\d{8}:)(?P<telegram>AA[\w-]{33})",
    "password in a URL": r"://[^\s:/@<>\"'?#]{0,64}:(?P<password>[^\s:/@<>\"'?#$%{}*]{3,128})@(?=[\w\[])",
    "private key": r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:\s|\\[nr]){0,4}[A-Z][\w-]{1,30}: [^\n]{0,100}){0,4}"
    r"(?:[\sA-Za-z0-9+/=]|\\[nr]){40,20000}(?:-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)?",
}
#: What the patterns begin with, for the scan.
PREFIXES = (
    "AKI", "ASI", "ABI", "ACC", "ghp", "gho", "ghu", "ghs", "ghr", "git", "glp", "gld", "glr", "gls", "glc", "xox", "xap", "hoo", "dis",
    "AIz", "GOC", "ya2", "sk_", "rk_", "whs", "sq0", "shp", "SG.", "key", "sk-", "hf_", "api", "npm", "pyp", "rub", "dop", "doo", "dor",
    "dap", "dck", "hvs", "hvb", "dp.", "NRA", "PMA", "lin", "ntn", "ATA", "AGE", "Acc", "eyJ", ":AA", "://", "---",
    *(f"SK{digit}" for digit in "0123456789abcdef"),
)  # fmt: skip
EDGE = r"(?![A-Za-z0-9_])"
_GROUPED = "|".join(f"(?:{pattern})" + ("" if name in ("password in a URL", "private key") else EDGE) for name, pattern in FORMATS.items())
SECRET = re.compile(_GROUPED.encode(), re.ASCII)
#: Passwords that documentation has in the place of one.
NO_PASSWORDS = re.compile(
    r"(?:x{3,}|\.{3,}|\[?(?:your|my)?[-_]?(?:pass(?:word|wd|wort)?|pwd|pw|secret|token|kennwort|mot[-_]de[-_]passe|contraseña|senha|пароль|密码)\]?)$".encode(),
    re.IGNORECASE,
)


@cache
def _prefix_table() -> npt.NDArray[np.bool_]:
    return scan.prefix_table([prefix.encode() for prefix in PREFIXES])


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    match = SECRET.match(document, start)
    if not match:
        return
    if match.lastgroup == "password" and NO_PASSWORDS.match(match["password"]):
        return
    first, last = match.span(match.lastgroup or 0)
    yield first, last - (len(document[first:last]) - len(document[first:last].rstrip()))


def find(texts: Texts) -> Spans:
    return texts.checked(texts.scan(scan.prefixes_at, _prefix_table()), check)
