"""Compares tokens a second of generation with `transformers`' `generate`, on the same model folder and prompts, both with a cache.

    python benchmarks/generate.py RUN/align/model [--tokens 200] [--batch 16] [--rounds 5] [--threads 1]

Measures one text, and a batch of prompts of different lengths (padded on the left for `transformers`, as it requires). No text ends early.
The two sides take turns; seconds are processor time, the best of the rounds. The program stops if the greedy texts differ.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import torch
from transformers import AutoModelForCausalLM

from corpusmill.train.checkpoint import load_model
from corpusmill.train.generate import DEFAULT, GREEDY, Sampling, generate_batch

PAD = 1
Texts = list[list[int]]


def best(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Returns the best processor seconds of each function; the functions take turns."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for number, work in enumerate(works):
            started = time.process_time()
            work()
            seconds[number].append(time.process_time() - started)
    return [min(found) for found in seconds]


def make_prompts(count: int, vocabulary: int, longest: int) -> Texts:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, longest, (count,), generator=generator).tolist()
    return [torch.randint(4, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, peer = load_model(given.model).eval(), AutoModelForCausalLM.from_pretrained(given.model).eval()
    prompts = make_prompts(given.batch, model.arch.vocab_size, max(5, min(40, model.arch.context - given.tokens)))

    def ours(some: Texts, sampling: Sampling) -> Texts:
        return [text.tokens for text in generate_batch(model, some, max_tokens=given.tokens, sampling=sampling, rows=len(some))]

    def theirs(some: Texts, sampling: Sampling) -> Texts:
        longest = max(map(len, some))
        ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in some])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some])
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k} if sampling.temperature else {}
        settled = {"max_new_tokens": given.tokens, "eos_token_id": -1, "do_sample": False, **drawn}
        return peer.generate(ids, attention_mask=mask, **settled)[:, longest:].tolist()

    print(f"{given.model}: {model.arch.parameters():,} weights, {given.tokens} tokens a text, {given.threads} threads")
    for texts in (prompts[:1], prompts):
        for name, sampling in (("greedy", GREEDY), ("temperature 0.8, top-k 50", DEFAULT)):
            first, second = ours(texts, sampling), theirs(texts, sampling)
            if sampling is GREEDY and first != second:
                raise SystemExit("greedy texts differ")
            seconds = best(given.rounds, lambda: ours(texts, sampling), lambda: theirs(texts, sampling))  # noqa: B023
            mine, its = (len(texts) * given.tokens / each for each in seconds)
            print(f"{len(texts):3} texts, {name:26} ours {mine:8,.0f} tokens/s  transformers {its:8,.0f}  ratio {mine / its:.2f}")


if __name__ == "__main__":
    main()
