"""A process between clients and an S3 server that counts requests and causes faults: `python s3_proxy.py SERVER_PORT`.

It prints the port that it listens on, and ends when its standard input does. `GET /_proxy` answers with its counts (JSON); `PUT
/_proxy` sets its faults: {"rates": {fault: share of requests}, "only": regular expression for "METHOD /bucket/key", "seed": N,
"seconds": of a delay, "forget": whether to reset the counts}. The fault of a request depends on the seed, on its method and key and
on the number of earlier requests with the same method and key, but on no other requests.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import socket
import struct
import sys
from collections import Counter
from urllib.parse import parse_qs, urlsplit

from s3_server import end_with_parent

CONTROL = "/_proxy"
#: Answers of a failing store. `lost`: done, but the answer is cut off; `truncate`: an answer ends too early but looks complete.
ANSWERS = {
    "500": (b"500 Internal Server Error", b"InternalError", b"We encountered an internal error. Please try again."),
    "503": (b"503 Slow Down", b"SlowDown", b"Please reduce your request rate."),
    "429": (b"429 Too Many Requests", b"TooManyRequests", b"Please reduce your request rate."),
    "403": (b"403 Forbidden", b"AccessDenied", b"Access Denied"),
}
FAULTS = (*ANSWERS, "cut_upload", "reset", "lost", "cut_response", "truncate", "delay")


class Proxy:
    def __init__(self, server_port: int):
        self.server_port = server_port
        self.counts: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()  # requests by method and key
        self.log: list[str] = []
        self.set({})

    def set(self, wanted: dict) -> None:
        unknown = set(wanted.get("rates", {})) - set(FAULTS)
        if unknown:
            raise ValueError(f"no such faults: {sorted(unknown)}")
        self.rates = wanted.get("rates", {})
        self.only = re.compile(wanted.get("only", ""))
        self.seed, self.seconds = wanted.get("seed", 0), wanted.get("seconds", 0.2)
        self.keys.clear()
        if wanted.get("forget", True):
            self.counts.clear()
            self.log.clear()

    def fault(self, method: str, target: str) -> str | None:
        """Returns the fault for this request."""
        url = urlsplit(target)
        what = f"{method} {url.path} {''.join(parse_qs(url.query).get('partNumber', ()))}".rstrip()
        if method == "GET" and url.query.startswith("uploads"):
            what += " uploads"
        self.counts["requests"] += 1
        self.counts[method] += 1
        self.log.append(f"{method} {target}")
        self.keys[what] += 1
        if not self.only.search(what):
            return None
        drawn = hashlib.sha256(f"{self.seed} {what} {self.keys[what]}".encode()).digest()
        place = int.from_bytes(drawn[:8], "big") / 2**64
        for name in FAULTS:
            place -= self.rates.get(name, 0)
            if place < 0:
                self.counts[name] += 1
                self.counts["faults"] += 1
                return name
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one client connection, request by request."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while await self._request(reader, writer):
                pass
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handles one request; returns whether the connection stays open."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, _, fields = head.partition(b"\r\n")
        method, target, _ = first.decode("latin-1").split(" ")
        if target == CONTROL:
            return await self._control(method, fields, reader, writer)
        fault = self.fault(method, target)
        body = await self._body(fields, reader, writer, fault == "cut_upload")
        if fault in ("cut_upload", "reset"):
            return _reset(writer)
        if fault in ANSWERS:
            writer.write(_answer(*ANSWERS[fault], with_body=method != "HEAD"))
            await writer.drain()
            return True
        if fault == "delay":
            await asyncio.sleep(self.seconds)
        fields = re.sub(rb"(?im)^(connection|expect):.*\r\n", b"", fields)
        answer = await self._upstream(first + b"\r\nConnection: close\r\n" + fields + body)
        if fault == "lost":
            return _reset(writer)
        return await self._pass_on(method, answer, fault, writer)

    async def _control(self, method: str, fields: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        body = await self._body(fields, reader, writer)
        if method == "PUT":
            self.set(json.loads(body))
        content = json.dumps({"counts": self.counts, "log": self.log}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
        return True

    async def _body(self, fields: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, half: bool = False) -> bytes:
        """Reads the body of a request unchanged, or its first half where the fault cuts it off."""
        if re.search(rb"(?im)^expect: *100-continue", fields):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if re.search(rb"(?im)^transfer-encoding:.*chunked", fields):
            body = b""
            while True:
                line = await reader.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                body += line + await reader.readexactly(size)
                if size:
                    body += await reader.readexactly(2)
                    continue
                while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                    body += line
                return body + line
        length = re.search(rb"(?im)^content-length: *(\d+)", fields)
        size = int(length[1]) if length else 0
        self.counts["bytes_up"] += size
        return await reader.readexactly(size // 2 if half else size)

    async def _upstream(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        writer.write(request)
        answer = await reader.read(-1)
        writer.close()
        return answer

    async def _pass_on(self, method: str, answer: bytes, fault: str | None, writer: asyncio.StreamWriter) -> bool:
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head:
            return _reset(writer)  # the server is gone
        head = re.sub(rb"(?i)\r\n(connection|keep-alive):[^\r]*", b"", head)
        sized = re.search(rb"(?i)\r\n(content-length|transfer-encoding):", head)
        if not sized and method != "HEAD":
            head += b"\r\nContent-Length: %d" % len(body)
        self.counts["bytes_down"] += len(body)
        short = fault in ("cut_response", "truncate") and len(body) > 1
        writer.write(head.replace(b"HTTP/1.0", b"HTTP/1.1", 1) + b"\r\n\r\n" + (body[: len(body) // 2] if short else body))
        await writer.drain()
        if short:
            return _reset(writer) if fault == "cut_response" else False
        return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Resets a connection, as a machine that dies does: data in transit are lost."""
    if (transport := writer.get_extra_info("socket")) is not None:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _answer(status: bytes, code: bytes, message: bytes, with_body: bool) -> bytes:
    body = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%s</Code><Message>%s</Message></Error>" % (code, message)
    head = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + (body if with_body else b"")


async def main() -> None:
    server = await asyncio.start_server(Proxy(int(sys.argv[1])).serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main())
