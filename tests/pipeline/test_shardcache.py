"""Tests token shards in a bucket (a real S3 server, moto's, on loopback), read through copies on this machine."""

import errno
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from token_sets import flat, random_documents, sha256_of, write_token_set

from corpusmill.pipeline import cache as caches
from corpusmill.pipeline.cache import ShardCache
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards

SHARDS = random_documents(5, 30, 60)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def remote(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Makes the set SHARDS in its own bucket, and returns the folder from which it was uploaded."""
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "CORPUSMILL_CACHE": str(tmp_path / "user-cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="tokens")
    folder = tmp_path / "set"
    write_token_set(folder, SHARDS, pack=(32,))
    for path in sorted(folder.iterdir()):
        client.put_object(Bucket="tokens", Key=f"run/train/{path.name}", Body=path.read_bytes())
    yield SimpleNamespace(
        url="s3://tokens/run/train",
        folder=folder,
        put=lambda name, body: client.put_object(Bucket="tokens", Key=f"run/train/{name}", Body=body),
        remove=lambda name: client.delete_object(Bucket="tokens", Key=f"run/train/{name}"),
    )
    for found in client.list_objects_v2(Bucket="tokens").get("Contents", []):
        client.delete_object(Bucket="tokens", Key=found["Key"])
    client.delete_bucket(Bucket="tokens")
    S3FileSystem.clear_instance_cache()


def copies(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_bucket_equals_a_folder_and_is_read_once(remote, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache")
    shards, local = TokenShards(remote.url, "f" * 64, cache=cache), TokenShards(remote.folder)
    assert not (tmp_path / "cache").exists()  # nothing is fetched before it is needed
    shards.map(range(5))
    assert shards.window(0, len(shards)).tolist() == flat(SHARDS) == local.window(0, len(local)).tolist()
    assert [shards.plan(n, 32).row.tolist() for n in range(5)] == [local.plan(n, 32).row.tolist() for n in range(5)]
    assert shards.locate(3, 7) == local.locate(3, 7)
    wanted = {shard.sha256 for shard in shards.shards} | {plan.sha256 for shard in shards.shards for plan in shard.plans}
    assert copies(tmp_path / "cache") == wanted
    assert all(sha256_of(tmp_path / "cache" / name) == name for name in wanted)
    for shard in shards.shards:
        remote.remove(shard.file)
    assert cache.use(shards.storage, shards.shards[0].file, 2 * shards.shards[0].tokens, shards.shards[0].sha256, Path).exists()
    with pytest.raises(InputError, match=r"s3://tokens/run/train/tokens-00000\.bin: this token shard is missing"):
        TokenShards(remote.url, cache=cache)


def test_workers_of_a_data_loader_share_the_copies(remote, tmp_path: Path) -> None:
    from corpusmill.train.data import TokenDataset, WindowLoader

    cache = ShardCache(tmp_path / "cache")
    dataset = TokenDataset(WindowLoader(TokenShards(remote.url, cache=cache), 16, 8, seed=0, document_mask=False), steps=6)
    local = WindowLoader(TokenShards(remote.folder), 16, 8, seed=0, document_mask=False)
    found = [batch[0].tolist() for batch in dataset.batches(workers=2)]
    assert found == [local.load(step)[0].tolist() for step in range(6)]
    assert copies(tmp_path / "cache") == {shard.sha256 for shard in dataset.loader.tokens.shards}  # type: ignore[attr-defined]


def test_a_failed_write_to_a_bucket_leaves_the_old_file(remote) -> None:
    """This holds for files of any size: larger ones go to the store in parts."""
    storage = Storage(remote.url)
    for size in (10, 60 << 20):
        with pytest.raises(RuntimeError), storage.write_atomic("tokens-00000.bin") as file:
            file.write(bytes(size))
            raise RuntimeError("killed")
        assert storage.read_bytes("tokens-00000.bin") == (remote.folder / "tokens-00000.bin").read_bytes()
    assert not boto3.client("s3").list_multipart_uploads(Bucket="tokens").get("Uploads")
    storage.write_bytes("tokens-00000.bin", b"new")
    assert storage.read_bytes("tokens-00000.bin") == b"new"


def test_the_cache_of_the_user_is_the_default(remote, tmp_path: Path) -> None:
    shards = TokenShards(remote.url)
    assert shards.window(0, 5).tolist() == flat(SHARDS)[:5]
    assert copies(tmp_path / "user-cache" / "tokens") == {shards.shards[0].sha256}


def check_refused(shards: TokenShards, folder: Path, sentence: str) -> None:
    with pytest.raises(InputError, match=r"s3://tokens/run/train/tokens-00002\.bin: " + sentence) as caught:
        shards.map(range(5))
    assert "\n" not in str(caught.value)
    assert shards.shards[2].sha256 not in copies(folder) and not any(name.endswith(".part") for name in copies(folder))


def test_an_object_that_is_not_the_one_is_a_sentence_and_leaves_nothing(remote, tmp_path: Path) -> None:
    whole = (remote.folder / "tokens-00002.bin").read_bytes()
    remote.put("tokens-00002.bin", whole[:-4] + b"\1\2\3\4")
    shards = TokenShards(remote.url, cache=ShardCache(tmp_path / "cache"))
    check_refused(shards, tmp_path / "cache", r"this file is not the one that was written \(its sha256 differs\)")
    remote.put("tokens-00002.bin", whole[:-4])  # while the set is open
    check_refused(shards, tmp_path / "cache", r"this file is cut short \([\d,]+ bytes are expected\)")
    remote.remove("tokens-00002.bin")
    check_refused(shards, tmp_path / "cache", "(no such file|can't be read)")


@pytest.mark.parametrize(("size", "what"), [(4, "cut short"), (2, "too long")])
def test_files_of_another_size_are_refused(tmp_path: Path, size: int, what: str) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(InputError, match=rf"a: this file is {what} \({size} bytes are expected\)"):
        ShardCache(tmp_path / "cache").use(Storage(str(tmp_path)), "a", size, sha256_of(tmp_path / "a"), Path)
    assert copies(tmp_path / "cache") == set()


def test_a_listing_tells_what_was_cut_short_before_anything_is_fetched(remote, tmp_path: Path) -> None:
    remote.put("tokens-00003.bin", b"12")
    with pytest.raises(InputError, match=r"tokens-00003\.bin: this token shard is cut short \(2 bytes"):
        TokenShards(remote.url, cache=ShardCache(tmp_path / "cache"))


def test_the_least_recently_used_copies_make_room(remote, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    description = TokenShards(remote.url, cache=ShardCache(folder)).description
    sizes = [2 * shard.tokens for shard in description.shards]
    shards = TokenShards(remote.url, cache=ShardCache(folder, limit=sizes[0] + sizes[1] + max(sizes[2:])))
    first = shards.tokens(0)
    shards.map([1])
    for number, shard in enumerate(description.shards[:2]):
        os.utime(folder / shard.sha256, ns=(number, number))
    TokenShards(remote.url, cache=shards._cache).tokens(0)  # used again
    shards.tokens(2)
    assert copies(folder) == {shard.sha256 for shard in description.shards[:3]}
    shards.tokens(3)
    kept = copies(folder)
    assert description.shards[1].sha256 not in kept and description.shards[3].sha256 in kept
    assert sum((folder / name).stat().st_size for name in kept) <= shards._cache.limit  # type: ignore[union-attr]
    for number in range(5):
        shards.tokens(number)
    assert first.tolist() == flat(SHARDS[:1])  # still mapped
    assert TokenShards(remote.url, cache=shards._cache).window(0, len(shards)).tolist() == flat(SHARDS)


def test_a_file_larger_than_the_cache_and_a_full_disk_are_sentences(remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = TokenShards(remote.url, cache=ShardCache(tmp_path / "cache", limit=100))
    with pytest.raises(InputError, match=r"are more than the cache .* may hold \(CORPUSMILL_SHARD_CACHE_GB sets how much\)"):
        shards.tokens(0)

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    shards = TokenShards(remote.url, cache=ShardCache(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"tokens-00000\.bin: can't be copied to .*cache \(No space left on device\)"):
        shards.tokens(0)
    assert copies(tmp_path / "cache") == set()


@pytest.mark.parametrize("given", ["much", "1e999", "nan"])
def test_a_limit_that_is_no_number_is_a_sentence(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CORPUSMILL_SHARD_CACHE_GB", given)
    with pytest.raises(InputError, match=f"CORPUSMILL_SHARD_CACHE_GB={given}: not a number of gigabytes"):
        ShardCache()


def test_a_set_can_not_name_files_outside_the_cache(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(InputError, match="names no sha256"):
        ShardCache(tmp_path / "cache").use(Storage(str(tmp_path)), "a", 1, "../a", Path)


def _fetch(folder: str, cache: str, sha256: str, size: int, started, results) -> None:  # type: ignore[no-untyped-def]
    started.wait()
    found = ShardCache(cache).use(Storage(folder), "a", size, sha256, lambda path: Path(path).read_bytes())
    results.put(len(found))


def test_processes_that_need_one_file_download_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All start together; later ones wait and find the copy. Downloads are counted by their lines in a log."""
    (tmp_path / "a").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    whole = caches._copy_checked

    def logged(storage, relative, file, size, sha256):  # type: ignore[no-untyped-def]
        with open(tmp_path / "log", "a") as log:
            log.write("x")
        whole(storage, relative, file, size, sha256)

    monkeypatch.setattr(caches, "_copy_checked", logged)
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    arguments = (str(tmp_path), str(tmp_path / "cache"), sha256_of(tmp_path / "a"), 3_000_000, started, results)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    started.set()
    assert [results.get(timeout=60) for _ in processes] == [3_000_000] * 6
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text() == "x"
    assert copies(tmp_path / "cache") == {sha256_of(tmp_path / "a")}


def test_what_a_killed_process_left_is_removed_and_what_another_downloads_is_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (tmp_path / "a").write_bytes(b"abc")
    (cache / ("1" * 64 + ".part")).write_bytes(b"left")
    os.utime(cache / ("1" * 64 + ".part"), (1, 1))
    (cache / ("2" * 64 + ".part")).write_bytes(b"under way")
    (cache / (sha256_of(tmp_path / "a") + ".part")).write_bytes(b"left by who downloaded the same")
    ShardCache(cache).use(Storage(str(tmp_path)), "a", 3, sha256_of(tmp_path / "a"), Path)
    assert copies(cache) == {"2" * 64 + ".part", sha256_of(tmp_path / "a")}


def test_a_cache_that_may_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"content")
    source, sha256 = Storage(str(tmp_path)), sha256_of(tmp_path / "a")
    cache = ShardCache(tmp_path / "cache", 100)
    assert cache.use(source, "a", 7, sha256, lambda path: Path(path).read_bytes()) == b"content"

    def forbidden(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", forbidden)  # tests may run as root, whom no mode stops
    assert cache.use(source, "a", 7, sha256, lambda path: Path(path).read_bytes()) == b"content"


def test_a_copy_of_another_size_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    name = sha256_of(tmp_path / "a")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).write_bytes(b"a")
    found = ShardCache(tmp_path / "cache").use(Storage(str(tmp_path)), "a", 3, name, lambda path: Path(path).read_bytes())
    assert found == b"abc"


def test_a_copy_that_goes_before_it_is_opened_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    asked = []

    def open_late(path: str) -> bytes:
        asked.append(path)
        if len(asked) == 1:
            Path(path).unlink()
        return Path(path).read_bytes()

    assert ShardCache(tmp_path / "cache").use(Storage(str(tmp_path)), "a", 3, sha256_of(tmp_path / "a"), open_late) == b"abc"
    assert len(asked) == 2
