"""The rules for redirects of web servers. The user has chosen the first address; a redirect is untrusted data.

A redirect is not followed from https to http, to anything but a web server, or from a public address to an address of this machine or its
network (a metadata service, a router's page). Names are looked up on this machine. A proxy that resolves other names needs such a rule
of its own.
"""

import ipaddress
import socket
import ssl
import urllib.request
from functools import cache
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import SplitResult, urljoin, urlsplit

#: The most redirects of one request.
MOST = 5
#: IPv6 networks whose last 32 bits are an IPv4 address: mapped, compatible, translated (RFC 2765), NAT64 (RFC 6052, RFC 8215).
EMBEDDING = [ipaddress.IPv6Network(each) for each in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")]


class RedirectRefusedError(OSError):
    """A redirect that is not followed. The message names only scheme and host of the target, since its URL may be signed."""


def check_redirect(origin: str, target: str) -> None:
    """Raises RedirectRefusedError if a request for `origin` must not be redirected to `target`, an absolute URL."""
    begin, end = urlsplit(origin), urlsplit(target)
    if end.scheme not in ("http", "https") or not end.hostname:
        raise _refused(end, "which is no web server's address")
    if begin.scheme == "https" and end.scheme == "http":
        raise _refused(end, "where nobody can tell who answers")
    if is_internal(end.hostname) and not is_internal(begin.hostname or ""):
        raise _refused(end, "which is an address of this machine or its network")


def lasting_fault(url: str, error: BaseException) -> str | None:
    """Returns a sentence on a host whose name does not exist, or whose certificate can't be verified; None for another error. It does not
    help to ask for it often."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ssl.SSLCertVerificationError):
            why = getattr(at, "verify_message", "") or getattr(getattr(at, "certificate_error", None), "verify_message", "")
            return f"{url}: the certificate of {urlsplit(url).hostname} can't be verified ({why or at})."
        if isinstance(at, socket.gaierror) and at.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return f"{url}: the host {urlsplit(url).hostname} can't be looked up: there is no network, or its name is wrong."
        at = getattr(at, "reason", None) if isinstance(getattr(at, "reason", None), OSError) else at.__cause__ or at.__context__
    return None


def is_internal(host: str) -> bool:
    """Whether a host is this machine or in a private network; False if its name can't be looked up."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host.partition("%")[0], None, proto=socket.IPPROTO_TCP)}
    except (OSError, UnicodeError):
        return False
    return any(not _plain(address).is_global for address in found)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Returns an address; for an IPv6 address that stands for an IPv4 address (mapped, 6to4, Teredo, NAT64), the IPv4 address."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if any(found in network for network in EMBEDDING):
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.sixtofour or (found.teredo[1] if found.teredo else found)


def _refused(end: SplitResult, why: str) -> RedirectRefusedError:
    where = f"{end.scheme}://{end.hostname or ''}"[:200]
    return RedirectRefusedError(f"the server sends the request on to {where!r}, {why}, so it is not followed")


class _Checked(urllib.request.HTTPRedirectHandler):
    max_redirections = max_repeats = MOST

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        check_redirect(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """Returns an opener for `urllib` that follows redirects by these rules."""
    return urllib.request.build_opener(_Checked)


@cache
def checked_redirects() -> dict[str, Any]:
    """Returns options that make an `aiohttp.ClientSession`, with which fsspec reads web servers, follow redirects by these rules."""
    import aiohttp

    async def check(_: object, context: Any, params: Any) -> None:
        context.redirects = getattr(context, "redirects", 0) + 1
        if context.redirects > MOST:
            raise RedirectRefusedError(f"the server sends the request on more than {MOST} times, so it is not followed")
        location = params.response.headers.get("Location") or params.response.headers.get("URI") or ""
        check_redirect(str(params.response.url), urljoin(str(params.response.url), location))

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(check)
    return {"trace_configs": [config]}
