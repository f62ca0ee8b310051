"""Writing WARC/1.1: one gzip member a record, digests as in the standard, the bytes exactly as they went over the wire."""

import base64
import gzip
import hashlib
import io
import uuid
from datetime import UTC, datetime
from typing import IO

FIELDS = "application/warc-fields"


class WarcWriter:
    """Writes the records of one site to an open binary file."""

    def __init__(self, file: IO[bytes], software: str):
        self.file = file
        self._write("warcinfo", f"software: {software}\r\nformat: WARC File Format 1.1\r\n".encode(), {"Content-Type": FIELDS})

    def exchange(self, url: str, request: bytes, response: bytes) -> None:
        """The records of one HTTP exchange; both messages with their headers, as sent and received."""
        common = {"WARC-Target-URI": url, "WARC-IP-Address": "127.0.0.1"}
        answered = self._write("response", response, {**common, "Content-Type": "application/http; msgtype=response"})
        self._write("request", request, {**common, "Content-Type": "application/http; msgtype=request", "WARC-Concurrent-To": answered})

    def _write(self, kind: str, block: bytes, headers: dict[str, str]) -> str:
        from fastwarc.warc import WarcRecord, WarcRecordType

        record = WarcRecord()
        record.init_headers(getattr(WarcRecordType, kind))
        name = f"<urn:uuid:{uuid.uuid4()}>"
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for key, value in {"WARC-Record-ID": name, "WARC-Date": date, **headers}.items():
            record.headers[key] = value
        if kind != "warcinfo":
            record.headers["WARC-Payload-Digest"] = sha1(block.partition(b"\r\n\r\n")[2])
        record.set_bytes_content(block)
        plain = io.BytesIO()
        record.write(plain, checksum_data=True)
        self.file.write(gzip.compress(plain.getvalue(), mtime=0))
        return name


def sha1(content: bytes) -> str:
    """A digest as WARC writes it."""
    return "sha1:" + base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()
