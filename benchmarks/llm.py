"""The step `llm` against a local server of known speed: how much of the server's throughput reaches the answers.

    python benchmarks/llm.py [--documents 10000] [--delay 0.1] [--concurrency 32]

The server (`tests/helpers/llm_server.py`, a process of its own) answers after `delay` seconds and up to a fifth more. The same questions
are asked first by a bare loop of the `openai` client, in the same run, then by the step.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))

import pyarrow as pa
from llm_server import LlmServer

from corpusmill.filters.llm.answer import question
from corpusmill.filters.llm.config import LlmConfig
from corpusmill.filters.llm.step import Llm
from corpusmill.filters.step import DocumentBatch
from corpusmill.pipeline.schemas import DOCUMENTS


def serve(delay: float, pipe) -> None:
    server = LlmServer(
        lambda document: json.dumps({"reason": f"{len(document)} characters", "score": len(document) % 6}), delay, jitter=0.2
    )
    with server.running():
        pipe.send(server.url)
        pipe.recv()


async def bare(config: LlmConfig, texts: list[str]) -> None:
    """Asks all questions and keeps nothing."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    gate = asyncio.Semaphore(config.concurrency)
    async with AsyncOpenAI(base_url=config.url, api_key="none", http_client=DefaultAioHttpClient()) as client:

        async def one(text: str) -> None:
            async with gate:
                await client.chat.completions.create(**question(config, text))

        await asyncio.gather(*(one(text) for text in texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(options.delay, theirs), daemon=True)
    server.start()
    texts = [
        f"Document {number}. " + "It has a few sentences about rivers, and then some more. " * 20 for number in range(options.documents)
    ]
    with tempfile.TemporaryDirectory() as cache:
        given = {"model": "m", "url": ours.recv(), "prompt": "educational", "only_passing": False, "cache": cache}
        config = LlmConfig.model_validate({**given, "concurrency": options.concurrency})
        begun = time.perf_counter()
        asyncio.run(bare(config, texts))
        peer = options.documents / (time.perf_counter() - begun)
        step = Llm(config)
        step.setup()
        step.begin()
        ids = {"id": [f"{number:032x}" for number in range(len(texts))], "source": [""] * len(texts), "text": texts}
        table = pa.table({**dict.fromkeys(DOCUMENTS.names, [None] * len(texts)), **ids}, schema=DOCUMENTS)
        speeds = []
        for _ in range(2):  # the second time all answers are kept
            begun, cpu = time.perf_counter(), time.process_time()
            for first in range(0, len(texts), 4096):
                part = table.slice(first, 4096)
                step.measure(DocumentBatch(part, part["text"].combine_chunks(), "words"))
            speeds.append((options.documents / (time.perf_counter() - begun), (time.process_time() - cpu) / options.documents * 1000))
        step.close()
    ideal = options.concurrency / (options.delay * 1.1)
    print(f"server: {ideal:,.0f} answers/s at most ({options.concurrency} at a time, {options.delay * 1.1:.3f} s each on average)")
    print(f"openai alone: {peer:,.0f} answers/s ({peer / ideal:.0%})")
    (ours_alone, cpu), (kept, _) = speeds
    print(f"step llm: {ours_alone:,.0f} answers/s ({ours_alone / ideal:.0%}; {cpu:.2f} ms of CPU each); ratio {ours_alone / peer:.2f}")
    print(f"kept answers: {kept:,.0f}/s; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MB")
    ours.send("end")


if __name__ == "__main__":
    main()
