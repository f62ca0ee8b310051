"""C4's line rules (Raffel et al. 2020) as datatrove's C4QualityFilter has them: lines are dropped, the rest is the new text.

Every document is measured and rewritten as if no document-level rule existed, so that thresholds can be changed later.
"""

import re
from collections import Counter
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
END_MARKS = (".", "?", "!", '"', "'")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

#: A sentence ends at a run of . ! ? … and closing quotes or brackets before space or the end, and at 。！？ anywhere.
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[」』”’）]*")


def count_sentences(line: str) -> int:
    """Sentences of one line: its sentence ends, and one more where text goes on after the last. 0 for a blank line."""
    count, last = 0, 0
    for end in SENTENCE_END.finditer(line):
        count, last = count + 1, end.end()
    return count + bool(line[last:].strip())


DATATROVE = (
    Rule("lorem_ipsum", "c4_lorem_ipsum_lines", ">", 0),
    Rule("curly_bracket", "c4_curly_bracket_lines", ">", 0),
    Rule("too_few_sentences", "c4_sentences", "<", 5),
)


class C4Config(Config):
    """C4: keep lines of natural sentences, and documents that have enough of them."""

    preset: Literal["datatrove-0.10", "fineweb"] = Field("datatrove-0.10", description="Whose rules decide.")
    filter_no_terminal_punct: bool = Field(True, description="Drop lines that do not end in . ? ! \" or ' (FineWeb does not).")
    min_words_per_line: int = Field(3, ge=0, description="Drop lines with fewer words than this.")
    max_word_length: int = Field(1000, ge=1, description="Drop lines with a longer word than this.")
    remove_citations: bool = Field(True, description="Remove [1], [edit] and [citation needed].")
    filter_javascript: bool = Field(True, description="Drop lines that mention javascript.")
    filter_policy: bool = Field(True, description="Drop lines about cookies, privacy policy and terms of use.")


class C4(Step):
    Config = C4Config
    PRESETS = {"datatrove-0.10": DATATROVE, "fineweb": DATATROVE}
    rewrites = True

    @property
    def columns(self) -> dict[str, pa.DataType]:
        names = ("lines", "kept_lines", "long_word_lines", "unpunctuated_lines", "short_lines", "javascript_lines", "policy_lines",
                 "lorem_ipsum_lines", "curly_bracket_lines", "sentences")  # fmt: skip
        return {f"c4_{name}": pa.int64() for name in names}

    def measure(self, batch: Batch) -> Measured:
        names = list(self.columns)
        values = np.zeros((len(names), len(batch)), np.int64)
        texts = []
        for place, text in enumerate(batch.text.to_pylist()):
            new_text, counts = self.rewrite(text)
            texts.append(new_text)
            values[:, place] = [counts[name] for name in names]
        return Measured(dict(zip(names, values)), pa.array(texts, pa.large_string()))

    def rewrite(self, text: str) -> tuple[str, Counter[str]]:
        """The text of the lines that stay, and the numbers of lines by what was found in them."""
        counts: Counter[str] = Counter()
        kept = []
        for raw in text.splitlines():
            counts["c4_lines"] += 1
            line = raw.strip()
            words = line.split()  # before citations go, as datatrove has it
            if self.config.remove_citations:
                line = CITATION.sub("", line)
            fault = self._fault(line, words)
            if fault is None:
                fault = self._content_fault(line, counts)
            if fault is not None:
                counts[fault] += 1
                continue
            counts["c4_sentences"] += count_sentences(line)
            kept.append(line)
        counts["c4_kept_lines"] = len(kept)
        return "\n".join(kept).strip(), counts

    def _fault(self, line: str, words: list[str]) -> str | None:
        """Why the form of a line lets it go; None where it stays."""
        if max(map(len, words), default=0) > self.config.max_word_length:
            return "c4_long_word_lines"
        if self.config.filter_no_terminal_punct and (not line.endswith(END_MARKS) or line.endswith("...")):
            return "c4_unpunctuated_lines"
        return "c4_short_lines" if len(words) < self.config.min_words_per_line else None

    def _content_fault(self, line: str, counts: Counter[str]) -> str | None:
        """Why the content of a line lets it go. Lines that speak against their document are counted on the way, in datatrove's order."""
        lower = line.lower()
        counts["c4_lorem_ipsum_lines"] += "lorem ipsum" in lower
        if self.config.filter_javascript and "javascript" in lower:
            return "c4_javascript_lines"
        counts["c4_curly_bracket_lines"] += "{" in line
        if self.config.filter_policy and any(phrase in lower for phrase in POLICY):
            return "c4_policy_lines"
        return None
