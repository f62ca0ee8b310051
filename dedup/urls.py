"""When two URLs are one address."""

import re
from urllib.parse import urlsplit, urlunsplit

DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21"}
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?")
_ESCAPE = re.compile("%([0-9a-fA-F]{2})")


def normalised_url(url: str) -> str:
    """The URL in the normal form of RFC 3986, sections 6.2.2 and 6.2.3, without its fragment; as it is where it can't be parsed."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return url
    scheme = parts.scheme.lower()
    user, at, place = parts.netloc.rpartition("@")
    match = _HOST.fullmatch(place)
    if match is None:
        return url
    host, port = match[1].lower(), match[2]
    if port and port != DEFAULT_PORTS.get(scheme):
        host += f":{port}"
    path = parts.path or ("/" if host else "")
    return urlunsplit((scheme, user + at + host, _escapes(path), _escapes(parts.query), ""))


def _escapes(text: str) -> str:
    """Percent-encodings in capitals, and none where a character needs none."""
    return _ESCAPE.sub(_escape, text) if "%" in text else text


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    return character if character in _UNRESERVED else match.group().upper()
