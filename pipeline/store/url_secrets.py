"""URLs that carry what opens them: a password, a signature, a token. No run takes one, for what it is given it writes down.

Inputs, their names in documents, the recipe and the run's folder stand in `run.json`, manifests, reports and logs, and a later run reads
them from there. A secret can't be left out without losing the file, so it does not come in: credentials belong into the environment.
"""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.masked import masked

#: Names of a query's values that are secrets: of signed URLs (Amazon, Google, Azure, CloudFront) and of common interfaces.
SECRET = re.compile(
    r"(x-amz-|x-goog-)?(signature|security-token|credential)|sig|awsaccesskeyid|((access|auth|api|private)[_-]?)?(token|key)|password|secret",
    re.IGNORECASE,
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+")


def has_secret(url: str) -> bool:
    """Whether a URL has a password (any user where it is http), or a value of its query or fragment whose name says that it is a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True  # nobody can say what is in it
    user, at, _ = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme in ("http", "https")):
        return True
    return any(SECRET.fullmatch(name) for text in (parts.query, parts.fragment) for name, _ in parse_qsl(text, keep_blank_values=True))


def refuse_secrets(value: Any, where: str) -> None:
    """Raises InputError where a text in `value` (of JSON) has a URL with a secret. `where` says in the sentence what it is of."""
    if isinstance(value, dict):
        for name, item in value.items():
            refuse_secrets(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_secrets(item, where)
    elif isinstance(value, str) and "://" in value:
        for url in _URL.findall(value):
            if has_secret(url):
                raise InputError(
                    f"{where}: {masked(url)} carries credentials, which a run would write down; give it without them, and "
                    "the credentials by the environment (AWS_*, a profile), or fetch the file first."
                )
