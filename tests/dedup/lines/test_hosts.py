import pyarrow as pa

from corpusmill.dedup.inside.lines import host_keys


def test_documents_of_one_host_have_one_key() -> None:
    urls = [
        "http://a.org/x", "HTTPS://A.org", "http://user:word@a.org?q", "http://a.org#top",  # one host
        "http://a.org:80/", "http://b.org/http://a.org/", "ftp://[::1]/x", "http://[::1]/y", None, None, "no url", None,
    ]  # fmt: skip
    sources = ["s"] * 9 + ["s", "s", "other"]
    keys = host_keys(pa.table({"url": pa.chunked_array([urls[:5], urls[5:]], pa.string()), "source": sources})).tolist()
    groups = [[0, 1, 2, 3], [4], [5], [6, 7], [8, 9, 10], [11]]
    assert [{keys[i] for i in group} for group in groups] == [{keys[group[0]]} for group in groups]
    assert len(set(keys)) == len(groups)
    assert len(host_keys(pa.table({"url": pa.array([], pa.string()), "source": pa.array([], pa.string())}))) == 0
