"""Tests the store that other tests use: it causes exactly the requested faults, the same in every run, and counts all of them."""

import threading

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ONCE = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
WHAT_FAILS = {
    "error_500": "InternalError", "error_503": "SlowDown", "error_429": "TooManyRequests", "reset": "Connection", "lost": "Connection",
    "cut_response": "Connection|Read|broken", "truncate": "Read|Incomplete",
}  # fmt: skip


@pytest.mark.parametrize("fault", WHAT_FAILS)
def test_a_read_suffers(s3, fault: str) -> None:
    s3.bucket("faults")
    s3.put("s3://faults/x", b"content" * 1000)
    client = boto3.client("s3", config=ONCE)
    with s3.faults(**{fault: 1.0}), pytest.raises((BotoCoreError, ClientError), match=WHAT_FAILS[fault]):
        client.get_object(Bucket="faults", Key="x")["Body"].read()
    assert s3.counts()["faults"] == s3.counts()["GET"] == 1
    s3.forget()
    assert client.get_object(Bucket="faults", Key="x")["Body"].read() == b"content" * 1000
    assert s3.counts()["faults"] == 0 and s3.counts()["bytes_down"] == 7000 and s3.log() == ["GET /faults/x"]


def test_a_write_is_cut_off_or_done_unseen(s3) -> None:
    s3.bucket("faults")
    client = boto3.client("s3", config=ONCE)
    for fault, there in (("cut_upload", []), ("lost", ["x"])):
        with s3.faults(**{fault: 1.0}, only="PUT"), pytest.raises(BotoCoreError):
            client.put_object(Bucket="faults", Key="x", Body=b"1" * 500_000)
        assert s3.keys("s3://faults") == there


def test_faults_depend_on_seed_and_request_alone(s3) -> None:
    """The order of requests plays no part: here they come from two threads."""

    def failed(seed: int, threads: int) -> set[tuple[str, int]]:
        found = set()

        def ask(names: list[str]) -> None:
            client = boto3.client("s3", config=ONCE)
            for name in names:
                for number in range(4):
                    try:
                        client.head_object(Bucket="faults", Key=name)
                    except ClientError:
                        found.add((name, number))

        with s3.faults(error_500=0.3, seed=seed):
            parts = [threading.Thread(target=ask, args=(names[place::threads],)) for place in range(threads)]
            for part in parts:
                part.start()
            for part in parts:
                part.join()
        return found

    names = [f"n{number}" for number in range(10)]
    s3.bucket("faults")
    for name in names:
        s3.put(f"s3://faults/{name}", b"")
    first = failed(1, 1)
    assert 5 <= len(first) <= 20 and failed(1, 2) == first != failed(2, 1)
