"""When two URLs are one address."""

import re

DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21"}
#: RFC 3986, appendix B: scheme, authority, path and query of a URL without a fragment.
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?]*))?([^?]*)(.*)", re.DOTALL)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLACE = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]*))?", re.DOTALL)
#: An escape that is not itself part of a broken one, which it would make whole.
_ESCAPE = re.compile("(?<!%)(?<!%[0-9a-fA-F])%([0-9a-fA-F]{2})")
#: White space and control characters, which readers of URLs leave out at both ends.
_AROUND = "".join(chr(point) for point in range(0x3001) if point <= 0x20 or chr(point).isspace())


def normalised_url(url: str) -> str:
    """The URL in the normal form of RFC 3986, sections 6.2.2 and 6.2.3, without its fragment. Any text has one."""
    match = _PARTS.fullmatch(url.partition("#")[0].strip(_AROUND))
    assert match is not None  # all parts are optional
    scheme, authority, path, query = match.groups("")
    scheme, path = scheme.lower(), _escapes(path)
    if match[2] is None:
        start = f"{scheme}:" if scheme else ""
    else:
        start = (f"{scheme}:" if scheme else "") + "//" + _authority(authority, scheme)
        path = path or "/"
    if scheme and path.startswith("/"):
        path = without_dots(path)
        if match[2] is None and path.startswith("//"):
            path = f"/.{path}"  # or else it would read as an authority
    return start + path + _escapes(query)


def _authority(authority: str, scheme: str) -> str:
    user, at, place = authority.rpartition("@")
    match = _PLACE.fullmatch(place)
    if match is None:
        return authority
    host, port = _escapes(match[1]).lower(), match[2]
    host = _ESCAPE.sub(lambda escape: escape.group().upper(), host)
    return user + at + host + (f":{port}" if port and port != DEFAULT_PORTS.get(scheme) else "")


def without_dots(path: str) -> str:
    """An absolute path without its `.` and `..` (RFC 3986, section 5.2.4)."""
    if "/." not in path:
        return path
    out: list[str] = []
    *folders, last = path.split("/")[1:]
    for part in folders:
        if part == "..":
            out = out[:-1]
        elif part != ".":
            out.append(part)
    if last == "..":
        out = out[:-1]
    return "/" + "/".join([*out, "" if last in (".", "..") else last])


def _escapes(text: str) -> str:
    """Percent-encodings in capitals, and none where a character needs none."""
    return _ESCAPE.sub(_escape, text) if "%" in text else text


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    return character if character in _UNRESERVED else match.group().upper()
