"""Benchmark tasks: what a model scores on published sets of questions, item by item as lm-evaluation-harness scores it."""
