"""Tests that a split by place is exact to the character, and that every token still leads to its origin."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_runs import content, report, splits, tokens_stage

from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.report.tokens.trace import trace
from corpusmill.report.tokens.verify import verify
from corpusmill.tokenize.parts import training_characters
from corpusmill.tokenize.tokenizer_stage import TokenizerStage


def test_the_border_is_that_of_nanogpt() -> None:
    assert training_characters([1_115_394], 0.1) == [int(0.9 * 1_115_394)] == [1_003_854]
    assert training_characters([600_000, 0, 515_394], 0.1) == [600_000, 0, 403_854]
    assert training_characters([10, 10, 10], 0.7) == [9, 0, 0]


@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=5), tail=st.floats(0.001, 0.999))
def test_both_sides_get_something_and_shards_are_filled_in_their_order(counts: list[int], tail: float) -> None:
    found, total = training_characters(counts, tail), sum(counts)
    assert total < 2 or 0 < sum(found) < total
    assert -1 < sum(found) - total * (1 - tail) < 1 or sum(found) in (1, total - 1)
    for number, count in enumerate(counts):
        assert found[number] == count or not any(found[number + 1 :])


TEXTS = [["It is a tale", "", "Told by an ïdiot, full of sound🙂"], ["and fury, signifying nothing"]]
WHOLE = "".join(text for shard in TEXTS for text in shard)


@pytest.fixture
def run(make_run, make_documents, execute):
    made = make_run([make_documents(texts) for texts in TEXTS])
    execute(made, TokenizerStage(TokenizerStage.Config(kind="characters")))
    return made


@pytest.mark.parametrize(("tail", "shuffle"), [(0.1, False), (0.5, True)])
def test_splits_hold_the_characters_before_and_behind_the_border(run, execute, tail: float, shuffle: bool) -> None:
    execute(run, tokens_stage(validation_tail=tail, shuffle=shuffle))
    border = training_characters([len(WHOLE)], tail)[0]
    table = json.loads(run.read_bytes("tokenizer/tokenizer.json"))
    tokens, text = 0, {}
    for split, documents in content(run).items():
        tokens += sum(len(ids) for _, ids in documents)
        text[split] = characters_of(run, split)
    if not shuffle:
        assert (text["train"], text["validation"]) == (WHOLE[:border], WHOLE[border:])
    assert sorted(text["train"]) == sorted(WHOLE[:border]) and sorted(text["validation"]) == sorted(WHOLE[border:])
    assert tokens == len(WHOLE) + sum(len(documents) for documents in content(run).values())  # an END_OF_TEXT after each part
    assert len(table["model"]["vocab"]) == 4 + len(set(WHOLE))


def characters_of(run, split: str) -> str:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(run.read_bytes("tokenizer/tokenizer.json").decode())
    return "".join(tokenizer.decode(ids) for _, ids in content(run)[split])


def test_tokens_of_a_cut_document_lead_to_their_place_in_its_text(run, execute) -> None:
    execute(run, tokens_stage(validation_tail=0.5, shuffle=False))
    border = training_characters([len(WHOLE)], 0.5)[0]
    text = TEXTS[0][2]
    cut = border - len(TEXTS[0][0])
    assert 0 < cut < len(text)
    for split, shards in splits(run).items():
        for address in shards.documents_of(0, shards.total):
            if address.utf8_bytes and address.data_row == 2 and address.data_file.endswith("0.parquet"):
                begin = address.text_begin
                assert (begin == 0) == (split == "train")
                assert address.utf8_bytes == len((text[:cut] if split == "train" else text[cut:]).encode())
                for token in range(address.first, address.first + address.tokens - 1):
                    traced = trace(run.root, 0, token, split)
                    place = (0 if split == "train" else cut) + token - address.first
                    assert traced.around and not traced.notes
                    assert traced.around.characters == text[place]
                    assert traced.around.first == len(text[:place].encode())


def test_verify_knows_of_the_cut(run, execute) -> None:
    execute(run, tokens_stage(validation_tail=0.5, shuffle=False))
    checks = verify(run.root, every=True)
    assert [check.faults for check in checks] == [[], []] and [check.compared for check in checks] == [2, 2]


def test_the_report_counts_a_cut_document_once(run, execute) -> None:
    done = execute(run, tokens_stage(validation_tail=0.5, shuffle=False))
    rows = report(run).to_pylist()
    assert [row["split"] for row in rows] == ["train", None, "train", "validation", "validation"]
    placed = [row for row in done.manifest.rows() if row.task.startswith("place/")]
    assert [(row.counts["documents"], row.counts["kept"]) for row in placed] == [(3, 2), (1, 1)]
    encoded = [row for row in done.manifest.rows() if row.task.startswith("encoded/")]
    assert [(row.rows_in, row.kept, row.dropped) for row in encoded] == [(3, 2, 1), (1, 1, 0)]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"tokens": {"validation_tail": 0.1, "validation_share": 0.2}}, "give validation_share or validation_tail, not both"),
        ({"tokenizer": {"kind": "characters", "vocab_size": 600}}, "so leave out vocab_size"),
    ],
)
def test_what_does_not_go_together(recipe, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_recipe(recipe, "recipe.yaml")
