"""Log-likelihoods of choices that share a beginning, against each choice computed alone; and where a context ends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_model

from corpusmill.pipeline.errors import InputError
from corpusmill.train.benchmarks.encode import Encoder, ScoredSequence
from corpusmill.train.benchmarks.loglikelihood import loglikelihoods, shared_inputs
from corpusmill.train.checkpoint import save_model
from corpusmill.train.speaker import load_text_generator
from corpusmill.train.template import CHATML, template_files

IDS = st.integers(0, 3)  # so few that beginnings are shared, and guesses right now and then


@pytest.fixture(scope="module", params=[0, 3], ids=["all", "window"])
def model(request):
    return random_model(seed=1, layers=2, window=request.param).double()


@st.composite
def choices(draw):
    """Of one item: a beginning, and endings of which any part may be scored."""
    beginning = draw(st.lists(IDS, min_size=1, max_size=6))
    endings = draw(st.lists(st.lists(IDS, min_size=1, max_size=6), min_size=1, max_size=4))
    wholes = [np.array([*beginning, *ending], np.int64) for ending in endings]
    return [ScoredSequence(ids, draw(st.integers(1, len(ids) - 1)), False) for ids in wholes]


@given(items=st.lists(choices(), min_size=1, max_size=6), batch_tokens=st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_each_choice_has_what_it_has_alone(model, items, batch_tokens):
    done = []
    values, greedy = loglikelihoods(model, items, batch_tokens, done.append)
    assert sum(done) == len(items)
    for choice, value, likeliest in zip((c for item in items for c in item), values, greedy, strict=True):
        with torch.no_grad():
            logps = model(torch.from_numpy(choice.ids[:-1])[None])[0].log_softmax(-1)[-choice.count :]
        targets = torch.from_numpy(choice.ids[-choice.count :])
        assert value == pytest.approx(float(logps.gather(1, targets[:, None]).sum()), abs=1e-4)  # logits are rounded to fp32
        assert likeliest == bool((logps.argmax(-1) == targets).all())


@pytest.mark.parametrize("wholes, shared", [
    (["abcd", "abce"], 2),  # what c predicts differs
    (["abcd", "abcd"], 2),  # an input is left for each
    (["abcd", "ab"], 0), (["ab", "abcd"], 0), (["xbcd", "abcd"], 0), (["abcde", "abcxe", "abcdx"], 2),
])  # fmt: skip
def test_what_is_shared(wholes, shared):
    assert shared_inputs([ScoredSequence(np.array(list(map(ord, whole))), 1, False) for whole in wholes]) == shared


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tokenizer_json):
    folder = tmp_path_factory.mktemp("model") / "model"
    files = {"tokenizer.json": tokenizer_json, **template_files(16, CHATML, "")}
    save_model(random_model(vocab_size=600, layers=1, context=16), folder, files)
    return Encoder(load_text_generator(folder, "cpu"))


def test_contexts_end_where_they_would_alone(encoder):
    def ids(text):
        return encoder.encode([text])[0]

    mill, spaced, empty, blank = encoder.pairs([("The mill", " grinds"), ("The mill  ", "grinds"), ("", "The mill"), (" \n", "grinds")])
    assert mill.ids.tolist() == ids("The mill grinds") and mill.count == len(ids(" grinds"))
    assert spaced.ids.tolist() == ids("The mill  grinds") and spaced.count == len(spaced.ids) - len(ids("The mill"))
    assert empty.ids.tolist() == [encoder.prefix, *ids("The mill")] and empty.count == len(empty.ids) - 1
    assert blank.ids.tolist() == [encoder.prefix, *ids(" \ngrinds")] and blank.count == len(blank.ids) - 1


def test_the_end_is_what_fits(encoder):
    context, end = "The mill grinds the grain. " * 5, "Our village keeps clear water."
    (cut,) = encoder.pairs([(context.rstrip(), f" {end}")])
    whole = encoder.encode([context + end])[0]
    assert cut.cut and cut.ids.tolist() == whole[-17:] and cut.count == min(16, len(encoder.encode([f" {end}"])[0]))
    (longer,) = encoder.pairs([("The mill", context)])
    assert longer.cut and longer.count == 16 and len(longer.ids) == 17


def test_nothing_to_score_is_refused(encoder):
    with pytest.raises(InputError, match=r"^evaluate: the continuation '' has no token of its own after 'The mill'\.$"):
        encoder.pairs([("The mill", "")])
