"""Tests the report's row for every record of the input."""

from pathlib import Path

from corpusmill.ingest.rows import INGEST_REPORT
from corpusmill.report.queries.summary import read_summary

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 5


def test_encodings_claimed_and_used_and_what_is_broken(tmp_path: Path, ingest, warcs) -> None:
    def response(url: str, body: bytes, content_type: str, **more: object) -> dict:
        return {"url": f"http://e.test/{url}", "body": body, "headers": [("Content-Type", content_type)], **more}

    page = f"<html><head><meta charset=KOI8-R></head><body><p>{RUSSIAN}</p></body></html>"
    (tmp_path / "a.warc.gz").write_bytes(
        warcs.write(
            [
                response("right", page.encode("koi8_r"), "text/html"),
                response("wrong", page.encode(), "text/html; charset=ISO-8859-1"),
                response("broken", page.encode().decode("latin-1").encode(), "text/html; charset=utf-8"),
                response("status", b"", "text/html; charset=utf-8", status="404 Not Found"),
                response("image", b"GIF89a", "image/gif"),
            ]
        )
    )
    found = ingest(tmp_path / "a.warc.gz")
    assert found.tables["report"].schema == INGEST_REPORT
    rows = {row["url"].rpartition("/")[2]: row for row in found.report}
    columns = ("http_status", "content_type", "encoding_claimed", "encoding", "kept", "failed")
    assert {name: tuple(row[c] for c in columns) for name, row in rows.items()} == {
        "right": (200, "text/html", "KOI8-R", "koi8-r", True, []),
        "wrong": (200, "text/html", "ISO-8859-1", "utf-8", True, []),
        "broken": (200, "text/html", "utf-8", "utf-8", True, []),
        "status": (404, "text/html", "utf-8", None, False, ["status"]),
        "image": (200, "image/gif", None, None, False, ["content_type"]),
    }
    assert rows["right"]["mojibake"] == rows["wrong"]["mojibake"] == 0.0 and rows["broken"]["mojibake"] > 0.6
    assert rows["status"]["mojibake"] is None
    assert rows["right"]["bytes_in"] > len(page) and rows["right"]["chars_out"] == len(RUSSIAN.strip())
    assert found.run.stage.summary(found.run)["read as"] == "utf-8 2, koi8-r 1"
    (origin,) = [o for o in read_summary(str(tmp_path / "run")).page.origins if o.title == "Encoding"]
    shown = [(name, documents) for name, documents, _ in origin.shown]
    assert shown == [("koi8-r", [1, 1]), ("utf-8", [1, 1]), ("utf-8, claimed ISO-8859-1", [1, 1])]
