"""Tests addresses in sets of several runs, and of documents that a mixture repeats or leaves out."""

import shlex

import pytest

from corpusmill.report.tokens.find import find
from corpusmill.report.tokens.trace import trace
from corpusmill.report.tokens.verify import verify
from corpusmill.tokenize.append import append
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage


def tokenized(run, execute, **options):
    execute(run, TokenizerStage(TokenizerStage.Config(**options)))
    execute(run, TokensStage(TokensStage.Config(shard_tokens=8_000, validation_share=0.1, pack_lengths=[256])))
    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory, publish_run, make_documents, execute, english, foreign):
    """Returns a set to which two runs were appended, and the folder of the second."""
    folder = tmp_path_factory.mktemp("sets")
    table = make_documents([*english[:40], *foreign[:20]])
    first = tokenized(publish_run([table.slice(0, 30)], folder / "first"), execute, vocab_size=600)
    file = first.path("tokenizer/tokenizer.json")
    second = tokenized(publish_run([table.slice(30)], folder / "second"), execute, vocab_size=32_768, file=file)
    for run in (first, second):
        append(str(folder / "set"), run.root)
    return folder / "set", folder / "second"


def test_a_set_leads_to_the_documents_of_the_runs_that_were_appended(folders, english, foreign, corpusmill):
    folder, _ = folders
    for text, run in ((english[3], "first"), (foreign[7], "second")):
        wanted = text[200:260]
        found = find(str(folder), wanted)
        assert (found.documents, found.outside, found.notes) == (1, 0, [])
        (one,) = found.found
        assert one.document["run"].endswith(f"/{run}") and one.byte == len(text[: text.index(wanted)].encode())
        command = shlex.split(one.places[0].command(str(folder)))[3:]
        options = dict(zip(command[::2], command[1::2], strict=True))
        traced = trace(str(folder), int(options["--shard"]), int(options["--token"]), options.get("--split", "train"))
        assert traced.notes == [] and traced.document.id == one.document["id"]
        assert traced.around.first <= one.byte < traced.around.first + len(traced.around.raw)
        assert traced.values["tokens"]["utf8_bytes"] == len(text.encode())
    code, out, _ = corpusmill("trace", folder, *command)
    assert code == 0 and b"second" not in out.split(b"URL")[0]


def test_a_set_is_verified_with_the_texts_of_its_runs(folders, tmp_path):
    folder, second = folders
    checks = verify(str(folder), every=True)
    assert [(check.faults, check.notes) for check in checks] == [([], [])] * 2
    assert sum(check.compared for check in checks) == sum(check.documents for check in checks) == 60
    (check,) = verify(str(folder / "train"), every=True)
    assert check.compared == check.documents and not check.faults
    away = second.rename(second.with_name("away"))
    faults = [sentence for check in verify(str(folder)) for sentence in check.faults]
    found = find(str(folder), "e")
    away.rename(second)
    assert faults and all("second" in sentence and "no such file" in sentence for sentence in faults)
    assert any("documents are left out" in note for note in found.notes) and found.documents > 0


def test_documents_that_a_mixture_repeats_or_leaves_out(make_run, make_documents, execute, english):
    """Every copy has its address, with its number; a document that no component takes is in no shard."""
    texts = [f"{text} unmistakable{number}." for number, text in enumerate(english[:40])]
    run = make_run([make_documents(texts, language=["en"] * 30 + ["xx"] * 10)])
    execute(run, TokenizerStage(TokenizerStage.Config(vocab_size=600)))
    component = {"name": "english", "where": {"language": "en"}, "weight": 1, "max_epochs": 3}
    mixture = {"budget_tokens": 10_000_000, "components": [component]}
    execute(run, TokensStage(TokensStage.Config(shard_tokens=8_000, validation_share=0.1, mixture=mixture)))
    found = find(run.root, " unmistakable", limit=100)
    assert (found.documents, found.outside) == (40, 10)
    for number, one in enumerate(found.found):
        copies = [place.copy for place in one.places]
        held_out = any(place.split == "validation" for place in one.places)
        assert sorted(copies) == ([] if number >= 30 else [0] if held_out else [0, 1, 2])
        for place in one.places:
            traced = trace(run.root, place.shard, place.token, place.split)
            assert traced.document.copy == place.copy and traced.document.id == one.document["id"] and traced.notes == []
            assert " unmistakable".startswith(traced.around.raw.decode()[:1])
    assert [check.faults for check in verify(run.root, every=True)] == [[], []]
