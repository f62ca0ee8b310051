"""Which records of a piece are given up because they kill the process that reads, and why.

A record whose extraction does it is given up at once where its CPU time ran out, and otherwise when a second process dies
of it too. Where reading does it, that is tried again, then without native code, and then what is left of the segment is
given up. Each is a row of the report. What kills a process from outside is no record's fault: nothing is given up for it,
and after some such deaths the whole task is tried elsewhere.
"""

from collections import Counter
from typing import Any

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.reader import READING_FACTOR
from corpusmill.ingest.reader_process import Died
from corpusmill.pipeline.errors import CorpusmillError, ProcessKilled

#: Processes that die at the same place before the piece fails.
TRIES = 3
#: Processes of a piece that are killed from outside before the piece fails.
KILLED = 3


def killed(death: Died) -> ProcessKilled:
    """The end of a task whose reader processes were killed from outside, the last one like this."""
    return ProcessKilled(f"the process that reads was killed from outside ({death.how}), perhaps because the machine has no memory left.")


class Losses:
    """Which records of a piece are given up, and why."""

    def __init__(self, limits: ExtractionConfig):
        self.limits = limits
        self.deaths: Counter[tuple[int, bool]] = Counter()
        self.lost: dict[int, tuple[str, str]] = {}
        self.unreadable: dict[int, tuple[str, str]] = {}
        self.by_hand = False
        self.killed = 0

    def request(self) -> dict[str, Any]:
        return {"lost": self.lost, "unreadable": self.unreadable, "by_hand": self.by_hand}

    def note(self, place: int, extracting: bool, death: Died) -> None:
        """Decides what the next process does differently. Raises ProcessKilled, and CorpusmillError where no process gets on."""
        if death.outside:
            self.killed += 1
            if self.killed >= KILLED:
                raise killed(death)
            return
        self.deaths[place, extracting] += 1
        tries = self.deaths[place, extracting] + death.sure
        if tries > TRIES:
            raise CorpusmillError(f"ingest: the process that reads dies at the same place again and again ({death.how}).")
        if extracting and tries >= 2:
            self.lost[place] = (death.rule, self._reason("its extraction", death))
        elif tries == 2:
            self.by_hand = True
        elif tries > 2:
            self.unreadable[place] = (death.rule, self._reason("reading it", death))

    def _reason(self, what: str, death: Died) -> str:
        if death.rule == "crashed":
            return f"{what} ended its process twice ({death.how})"
        if death.rule == "timeout":
            seconds = self.limits.max_page_seconds * (1 if what == "its extraction" else READING_FACTOR)
            return f"{what} took more than {seconds:g} seconds (extraction.max_page_seconds)"
        return f"{what} took more than {self.limits.max_memory_mb} MB (extraction.max_memory_mb)"
