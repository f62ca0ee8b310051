"""Tests CORE: prompts by hand, and decisions as nanochat's core_eval.py makes them, one item at a time without a cache."""

import json
import math
from random import Random

import pytest
import torch
import torch.nn.functional as F
from benchmark_items import CHOICES, CORE_SETS, SCHEMA, WORDS, write_bundle
from small_models import random_model

from corpusmill.pipeline.errors import InputError
from corpusmill.train.benchmarks import CORE_TASKS, ModelUnderTest, mean_score, read_task, remarks, summarise
from corpusmill.train.checkpoint import save_model
from corpusmill.train.evaluate import TaskConfig
from corpusmill.train.template import CHATML, template_files

CONTEXT = 128


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "eval_bundle", CORE_SETS)


@pytest.fixture(scope="module")
def tested(tmp_path_factory, tokenizer_json):
    folder = tmp_path_factory.mktemp("exported") / "model"
    files = {"tokenizer.json": tokenizer_json, **template_files(CONTEXT, CHATML, "<|endoftext|>")}
    save_model(random_model(seed=3, vocab_size=600, context=CONTEXT), folder, files)
    return ModelUnderTest(folder, "cpu", batch_tokens=300)


def core(bundle, **options):
    config = TaskConfig(task="core", path=str(bundle), **options)
    return config, {of.task.name: of for of in read_task(config)}


def shuffled(rows):
    rows = list(rows)
    Random(1337).shuffle(rows)
    return rows


# ---- prompts -----------------------------------------------------------------------------------------


def test_prompts_by_hand(bundle):
    _, sets = core(bundle)
    prompts = {}  # by task and number in its file
    for name, of in sets.items():
        first = min(item.number for item in of.items)
        prompts[name] = {item.number - first: item.texts for item in of.items}
    assert prompts["copa"][1] == ["Question: Who sells flour? the miller", "Question: Who sells flour? the merchant",
                                  "Question: Who sells flour? a river"]  # fmt: skip
    assert prompts["lambada_openai"][0] == ["A mill on this river grinds grain"]
    examples = ("A mill on this river grinds\nAnswer: grain\n\n", "The miller keeps\nAnswer: many stories\n\n")
    assert prompts["jeopardy"][2] in [[f"{example}Every farmer carries\nAnswer: wheat"] for example in examples]
    first = SCHEMA[0]["context_options"]
    examples = ("A farmer paid the miller, as the miller had ground his grain.\n\n", "Water turns wheels where water is fast.\n\n")
    assert prompts["winograd"][0] in [[f"{example}{context} was heavy." for context in first] for example in examples]
    for number, (context, *_) in enumerate(prompts["commonsense_qa"][n] for n in range(4)):
        assert context.count("\nAnswer: ") == 3 and context.count("\n\n") == 2
        assert context.endswith(f"\n\n{CHOICES[number]['query']}\nAnswer: {CHOICES[number]['choices'][0]}")
        assert context.count(CHOICES[number]["query"]) == 1


def test_examples_are_those_that_nanochat_draws(bundle):
    _, sets = core(bundle)
    rows = shuffled(CHOICES)
    for place, item in enumerate(sets["commonsense_qa"].items):
        drawn = Random(1234 + place).sample([n for n in range(len(rows)) if n != place], 2)
        solved = [f"{rows[n]['query']}\nAnswer: {rows[n]['choices'][rows[n]['gold']]}\n\n" for n in drawn]
        assert item.contexts[0] == "".join(solved) + rows[place]["query"] + "\nAnswer:"


# ---- decisions ---------------------------------------------------------------------------------------


def prefix(sequences):
    return next((n for n, ids in enumerate(zip(*sequences)) if len(set(ids)) > 1), min(map(len, sequences)))


def decision(kind, item, encode, model):
    """Returns whether the model decides an item rightly. Mean losses of all places, cut to the model's context at the beginning."""
    prompts = [encode(context + continuation) for context, continuation in zip(item.contexts, item.continuations)]
    if kind == "multiple_choice":
        starts = [prefix(prompts)] * len(prompts)
    elif kind == "schema":
        starts = [len(ids) - prefix([ids[::-1] for ids in prompts]) for ids in prompts]
    else:
        starts = [len(encode(item.contexts[0].strip()))]
        assert prompts[0][: starts[0]] == encode(item.contexts[0].strip())
    losses = []
    for ids, start in zip(prompts, starts):
        kept, start = ids[-CONTEXT:], start - max(0, len(ids) - CONTEXT)
        logits = model(torch.tensor([kept]))[0]
        if kind == "language_modeling":
            return bool((logits[start - 1 : -1].argmax(-1) == torch.tensor(kept[start:])).all())
        losses.append(float(F.cross_entropy(logits[start - 1 : -1], torch.tensor(kept[start:]))))
    return losses.index(min(losses)) == item.gold


@torch.no_grad()
def test_decisions_are_those_of_nanochat(bundle, tested):
    long = {**CHOICES[0], "query": "The mill grinds grain between heavy stones. " * 40}
    with (bundle / "eval_data/some/copa.jsonl").open("a") as file:
        file.write(json.dumps(long) + "\n")
    config, sets = core(bundle)
    table = tested.score(list(sets.values()))
    model = tested.model
    encode = lambda text: [tested.prefix, *tested.encode([text], special=False)[0].tolist()]  # noqa: E731
    wanted = {name: [decision(of.task.kind, item, encode, model) for item in of.items] for name, of in sets.items()}
    rows = table.to_pylist()
    assert {name: [bool(row["acc"]) for row in rows if row["group"] == name] for name in sets} == wanted
    assert sum(map(sum, wanted.values())) not in (0, len(rows))  # some are right and some wrong
    summary = summarise(config, list(sets.values()), table)
    for name, (_, _, _, guess, _) in CORE_SETS.items():
        accuracy = sum(wanted[name]) / len(wanted[name])
        assert summary["groups"][name]["metrics"]["centered"]["value"] == pytest.approx((accuracy - 0.01 * guess) / (1.0 - 0.01 * guess))
    values = [of["metrics"]["centered"]["value"] for of in summary["groups"].values()]
    assert summary["metrics"]["centered"]["value"] == pytest.approx(sum(values) / 5) and summary["cut"] == 1


@torch.no_grad()
def test_bits_per_byte_of_the_right_answer(bundle, tested, tmp_path):
    """Nats of the whole right continuation, not only of the ids by which choices differ."""
    _, sets = core(bundle)
    (tmp_path / "sciq.jsonl").write_text(json.dumps(
        {"question": "What grinds?", "distractor1": "water", "distractor2": "Öl", "distractor3": "a", "correct_answer": "Mühlsteine",
         "support": ""}) + "\n")  # fmt: skip
    sciq = read_task(TaskConfig(task="sciq", path=str(tmp_path / "sciq.jsonl")))
    model = tested.model
    for name, chosen, begin in (("commonsense_qa", [sets["commonsense_qa"]], [tested.prefix]), ("sciq", sciq, [])):
        table = tested.score(chosen)
        for item, row in zip(chosen[0].items, table.to_pylist(), strict=True):
            context, answer = item.contexts[item.gold], item.continuations[item.gold]
            ids, before = ([*begin, *tested.encode([text], special=False)[0].tolist()] for text in (context + answer, context))
            nats = F.cross_entropy(model(torch.tensor([ids]))[0, len(before) - 1 : -1], torch.tensor(ids[len(before) :]), reduction="sum")
            assert row["bits_per_byte"] == pytest.approx(float(nats) / math.log(2) / len(answer.encode()), rel=1e-5), name
    summary = summarise(TaskConfig(task="sciq", path="-"), sciq, table)
    assert summary["metrics"]["bits_per_byte"] == mean_score(table["bits_per_byte"].to_numpy())


# ---- the number --------------------------------------------------------------------------------------


def test_core_is_named_only_when_all_tasks_are_scored(tmp_path, tested):
    everything = dict.fromkeys(CORE_TASKS, ("language_modeling", 0, None, 0, WORDS))
    config, sets = core(write_bundle(tmp_path / "whole", everything))
    summary = summarise(config, list(sets.values()), tested.score(list(sets.values())))
    assert summary["title"] == "CORE" and summary["missing"] == [] and remarks(summary) == []
    (tmp_path / "whole/eval_data/some/squad.jsonl").unlink()
    config, sets = core(tmp_path / "whole", limit=2)
    summary = summarise(config, list(sets.values()), tested.score(list(sets.values())))
    assert summary["title"] == "21 of CORE's 22 tasks" and summary["missing"] == ["squad"]
    assert (summary["items"], summary["total"]) == (42, 63)
    assert remarks(summary) == ["no number for CORE, as the items of squad are not there; give DCLM's bundle as `path`."]


@pytest.mark.parametrize("broken, sentence", [
    ({"core.yaml": None}, "No such file or directory; the bundle of CORE has core.yaml and eval_meta_data.csv."),
    ({"core.yaml": "a: 1"}, "its core.yaml and eval_meta_data.csv do not describe the tasks of CORE"),
    ({"eval_data/some/copa.jsonl": '{"query": "a", "choices": 3, "gold": 0}\n'}, "it has no list of texts as its choices."),
])  # fmt: skip
def test_what_is_no_bundle_is_named(bundle, broken, sentence):
    for name, content in broken.items():
        (bundle / name).unlink() if content is None else (bundle / name).write_text(content)
    with pytest.raises(InputError) as caught:
        core(bundle)
    assert sentence in str(caught.value) and str(caught.value).startswith(str(bundle))
