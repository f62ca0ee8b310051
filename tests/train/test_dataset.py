"""The same samples in the same order for any number of processes, workers and micro-batches; one integer goes on from anywhere."""

import pytest
import torch
from token_sets import random_documents, write_token_set
from torch.utils.data import DataLoader

from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.dataset import TokenDataset
from corpusmill.train.loader import WindowLoader
from corpusmill.train.packed import PackedLoader


@pytest.fixture(params=["stream", "documents"])
def loader(request, tmp_path):
    write_token_set(tmp_path, random_documents(6, 40, 50), pack=(16,))
    kind = WindowLoader if request.param == "stream" else PackedLoader
    return kind(TokenShards(tmp_path), 16, 12, seed=4, document_mask=True)


def rows(batches) -> list[list[int]]:
    return [[*row.tolist(), *target.tolist(), *segment.tolist()] for batch in batches for row, target, segment in zip(*batch)]


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 0), (1, 5), (2, 0), (2, 4), (3, 1), (4, 2), (12, 0)])
def test_all_processes_together_have_the_steps(loader, world, micro_batch) -> None:
    wanted = rows(loader.load(step) for step in range(3))
    parts = [list(TokenDataset(loader, micro_batch, rank, world, steps=3)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    found = rows(batch for together in zip(*parts) for batch in together)
    assert found == wanted
    assert all(len(batch[0]) <= (micro_batch or 12 // world) for part in parts for batch in part)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_order_of_none(loader, workers) -> None:
    dataset = TokenDataset(loader, 5, steps=4)
    wanted = rows(TokenDataset(loader, 5, steps=4))
    assert rows(DataLoader(dataset, batch_size=None, num_workers=workers)) == wanted
    assert rows(dataset.batches(workers)) == wanted and dataset.state_dict() == {"samples": 48}


def test_workers_that_are_started_anew_open_the_shards_for_themselves(loader) -> None:
    found = DataLoader(TokenDataset(loader, 6, steps=2), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert rows(found) == rows(TokenDataset(loader, 6, steps=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_one_integer_goes_on_with_other_processes_and_micro_batches(loader, workers) -> None:
    wanted = rows(TokenDataset(loader, steps=5))
    first = TokenDataset(loader, 4)
    begun = []
    for batch in first.batches(workers):
        begun += rows([batch])
        if len(begun) == 20:
            break
    state = first.state_dict()
    assert state == {"samples": 20}
    parts = []
    for rank in range(2):
        dataset = TokenDataset(loader, 2, rank, 2, steps=5)
        dataset.load_state_dict(state)
        parts.append(list(dataset))
    assert begun + rows(batch for together in zip(*parts) for batch in together) == wanted


def test_the_rest_of_a_step_without_equal_shares_is_refused(loader) -> None:
    dataset = TokenDataset(loader, 4, 0, 3)
    with pytest.raises(ValueError, match="4 samples: the rest of a step of 12 has no equal shares for 3 processes"):
        dataset.load_state_dict({"samples": 4})
    with pytest.raises(ValueError, match="-12 samples"):
        dataset.load_state_dict({"samples": -12})
    dataset.load_state_dict({"samples": 6})
    assert dataset.state_dict() == {"samples": 6} and len(next(iter(dataset))[0]) == 2


def test_step_a_million_is_there_at_once(loader) -> None:
    dataset = TokenDataset(loader)
    dataset.load_state_dict({"samples": 12 * 1_000_000})
    assert all(torch.equal(a, b) for a, b in zip(next(iter(dataset)), loader.load(1_000_000)))
    assert dataset.state_dict() == {"samples": 12 * 1_000_001}


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 1), (0, 5)])
def test_shares_that_are_not_equal_are_refused(loader, rank, world) -> None:
    with pytest.raises(ValueError, match="every process needs an equal share"):
        TokenDataset(loader, 0, rank, world)
