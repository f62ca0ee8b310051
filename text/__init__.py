"""Compiled kernels over Arrow text buffers that several packages share: characters, words, lines, sentences, hashes."""
