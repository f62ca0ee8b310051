"""The step `rights`: reservations against training, and licences, by what pages and their sites say.

`ingest` has read each page's own signals (column `rights`) and the files of its site, which `site_table` brings together. Where the two
speak of text and data mining, a meta supersedes a header, and a header the site's file (TDMRep, "Processing priority").
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from protego import Protego
from pydantic import Field

from corpusmill.filters.rules import Rule
from corpusmill.filters.step import DocumentBatch, Step, StepOutput
from corpusmill.pipeline.config import Config, parse_json
from corpusmill.pipeline.formats.sites import AI_AGENTS, SITES, site_of
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import open_parquet, read_table
from corpusmill.pipeline.storage import Storage

#: Licences that allow changed copies for any purpose, by the beginning of their name in SPDX's words.
OPEN = (
    "CC0-", "CC-PDM-", "CC-BY-1", "CC-BY-2", "CC-BY-3", "CC-BY-4", "CC-BY-SA-", "GFDL-", "ODbL-", "ODC-By-", "PDDL-", "OGL-",
    "MIT", "Apache-",
)  # fmt: skip
#: `eu-tdm` takes reservations for the purpose: against mining, or crawlers for training by name. `strict` takes any robots.txt that keeps
#: such a crawler away. `licensed-only` asks for an open licence, and no reservation for the purpose.
NAMES = ("rights_noai", "rights_tdm", "rights_robots", "rights_ai_txt", "rights_domain")
PURPOSE = tuple(Rule(name, name, ">", 0) for name in NAMES)
PRESETS = {
    "strict": (*PURPOSE, Rule("rights_any_robots", "rights_any_robots", ">", 0)),
    "eu-tdm": PURPOSE,
    "licensed-only": (*PURPOSE, Rule("rights_open_license", "rights_open_license", "<", 1)),
}
#: The stage's file with the rows of `site_table`.
SITES_FILE = "sites.parquet"
#: Redirects that are followed (RFC 9309, 2.3.1.2), and sites that a worker remembers.
REDIRECTS, REMEMBERED = 5, 4096
#: A name of an agent in robots.txt, and a line with a preference for training: AIPREF's `Content-Usage`, Cloudflare's `Content-Signal`.
AGENT = re.compile(r"^[ \t]*user-agent[ \t]*:[ \t]*([^\s#]+)", re.IGNORECASE | re.MULTILINE)
TRAIN_AI = re.compile(
    r"^[ \t]*content-(?:usage|signal)[ \t]*:[ \t]*(/\S*)?[^\n#]*\b(?:train-ai|ai-train)[ \t]*=[ \t]*n", re.IGNORECASE | re.MULTILINE
)


class RightsConfig(Config):
    """Reservations of rights against training, and licences (`docs/guides/rights.md`)."""

    preset: Literal["strict", "eu-tdm", "licensed-only"] = Field(
        "eu-tdm",
        description="`eu-tdm`: drops what is reserved against mining or training, also by a robots.txt that names one of `agents`; "
        "`strict`: also what robots.txt keeps from them with all others; `licensed-only`: as `eu-tdm`, and what has no open licence.",
    )
    agents: tuple[str, ...] = Field(AI_AGENTS, description="Crawlers whose mention in robots.txt counts, by their product tokens.")
    domains: tuple[str, ...] = Field((), description="Domains whose pages are dropped with their subdomains, such as `example.org`.")


class Rights(Step):
    Config = RightsConfig
    PRESETS = PRESETS
    MEANINGS = {
        "rights_noai": "{count} of the page's headers and metas keep it from training (noai)",
        "rights_tdm": "{count} reservations of text and data mining (TDMRep)",
        "rights_robots": "{count} crawlers for training are named in the site's robots.txt and kept from the page",
        "rights_any_robots": "{count} crawlers for training are kept from the page by the site's robots.txt, by name or with all others",
        "rights_ai_txt": "{count} lines of the site's ai.txt keep text from training",
        "rights_domain": "{count} of the recipe's domains are the page's",
        "rights_open_license": "{count} open licences are named",
    }

    def __init__(self, config: RightsConfig):
        super().__init__(config)
        self.sites: Sites | None = None
        self.agents = [name.lower() for name in config.agents]

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {**super().columns, "license": pa.string(), "reason": pa.string()}

    def open(self, run: Storage) -> None:
        self.sites = Sites(run, f"filter/{SITES_FILE}") if run.exists(f"filter/{SITES_FILE}") else None

    def measure(self, batch: DocumentBatch) -> StepOutput:
        urls, signals, licences = (batch.column(name) for name in ("url", "rights", "license"))
        given = [None] * len(batch) if urls is None else urls.to_pylist()
        said = [None] * len(batch) if signals is None else signals.to_pylist()
        named = [None] * len(batch) if licences is None else licences.to_pylist()
        sites = self.sites.of({host for url in given if (host := site_of(url))}) if self.sites else {}
        found = [self._page(url, each or [], sites.get(site_of(url) or "")) for url, each in zip(given, said, strict=True)]
        columns: dict[str, Any] = {name: [values[name] for values, _ in found] for name in super().columns if name != "rights_open_license"}
        columns["rights_open_license"] = [int((name or "").startswith(OPEN)) for name in named]
        evidence = ["; ".join(dict.fromkeys(lines)) or None for _, lines in found]
        return StepOutput({**columns, "license": pa.array(named, pa.string()), "reason": pa.array(evidence, pa.string())})

    def _page(self, url: str | None, signals: Iterable[Mapping[str, str]], site: "SiteRules | None") -> tuple[Counter[str], list[str]]:
        """Returns the values of a page, and the evidence for them in words."""
        values, evidence, mining = Counter[str](), list[str](), dict[str, str]()
        for signal in signals:
            kind, where, says = signal["signal"], signal["where"], signal["says"]
            if kind == "tdm-reservation":
                mining[where] = says
            elif kind == "noai" or (kind == "train-ai" and says == "n"):
                values["rights_noai"] += 1
            if kind != "license" and (kind, says) != ("tdm-reservation", "0"):
                evidence.append(f"{where}: {kind if says in (kind, '') else f'{kind} {says}'}")
        reserved = mining.get("meta", mining.get("header"))
        if site and url:
            if reserved not in ("0", "1") and (rule := site.mining(url)):
                reserved = "1"
                evidence.append(f"tdmrep.json{site.date('tdmrep.json')}: {rule} is reserved")
            barred, by_name = site.barred(url, self.agents)
            values["rights_any_robots"], values["rights_robots"] = len(barred), len(by_name)
            if barred:
                evidence.append(f"robots.txt{site.date('robots.txt')}: not for {', '.join((by_name or barred)[:3])}")
            if site.keeps_text(url):
                values["rights_ai_txt"] = 1
                evidence.append(f"ai.txt{site.date('ai.txt')}: not for training")
        values["rights_tdm"] = int(reserved == "1")
        host = (site_of(url) or "").partition(":")[0]
        values["rights_domain"] = sum(f".{host}".endswith(f".{name.lower()}") for name in self.config.domains)
        return values, evidence + [f"on the list of domains: {host}"] * bool(values["rights_domain"])


# ---- sites -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SiteRules:
    """What the files of a site say. `files`: by name, the last answer to a request for it, as a row of SITES."""

    files: Mapping[str, Mapping[str, Any]]

    def body(self, file: str) -> str:
        return str((self.files.get(file) or {}).get("body") or "")

    def date(self, file: str) -> str:
        """Returns the day of a file in brackets, for the evidence."""
        day = str((self.files.get(file) or {}).get("timestamp") or "")[:10]
        return f" ({day})" if day else ""

    @cached_property
    def _robots(self) -> Any:
        return Protego.parse(self.body("robots.txt"))

    @cached_property
    def _ai_txt(self) -> Any:
        return Protego.parse(self.body("ai.txt"))

    @cached_property
    def _named(self) -> set[str]:
        return {name.lower() for name in AGENT.findall(self.body("robots.txt"))}

    @cached_property
    def _no_training(self) -> list[str]:
        """The paths below which robots.txt asks not to train."""
        return [prefix or "/" for prefix in TRAIN_AI.findall(self.body("robots.txt"))]

    @cached_property
    def _mining(self) -> list[dict[str, Any]]:
        try:
            rules = parse_json(self.body("tdmrep.json"))
        except ValueError:
            return []
        given = rules if isinstance(rules, list) else []
        return [rule for rule in given if isinstance(rule, dict) and isinstance(rule.get("location"), str)]

    def barred(self, url: str, agents: Sequence[str]) -> tuple[list[str], list[str]]:
        """Returns the agents that robots.txt keeps from a URL, and those of them that it names, or speaks of as crawlers for training.

        A file that a server can't give (status 5xx) keeps all away (RFC 9309, 2.3.1.4); one that is not there nobody.
        """
        status = (self.files.get("robots.txt") or {}).get("status") or 0
        if status >= 500:
            return list(agents), []
        others = None if all(agent in self._named for agent in agents) else not self._robots.can_fetch(url, "any-other-agent")
        path = urlsplit(url).path or "/"
        training = any(path.startswith(prefix) for prefix in self._no_training)
        barred = [agent for agent in agents if training or (not self._robots.can_fetch(url, agent) if agent in self._named else others)]
        return barred, barred if training else [agent for agent in barred if agent in self._named]

    def keeps_text(self, url: str) -> bool:
        """Whether ai.txt keeps a URL, or text files as such, from training."""
        if not self.body("ai.txt"):
            return False
        return not all(self._ai_txt.can_fetch(address, "*") for address in (url, f"{'://'.join(urlsplit(url)[:2])}/any.txt"))

    def mining(self, url: str) -> str | None:
        """Returns the location of the rule of tdmrep.json that reserves a URL, or None. The first rule that matches decides."""
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "") or "/"
        rule = next((rule for rule in self._mining if _matches(rule["location"], path)), None)
        return rule["location"] if rule and str(rule.get("tdm-reservation")) == "1" else None


@lru_cache(1024)
def _pattern(location: str) -> re.Pattern[str]:
    whole = location.endswith("$")
    return re.compile(".*".join(map(re.escape, location.removesuffix("$").split("*"))) + (r"\Z" if whole else ""))


def _matches(location: str, path: str) -> bool:
    return _pattern(location).match(path) is not None


class Sites:
    """The rows of `site_table`, whose row groups are read when one of their sites is asked for."""

    def __init__(self, run: Storage, path: str):
        with open_parquet(run, path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        self.ends = [(group.column(0).statistics.min, group.column(0).statistics.max) for group in groups if group.num_rows]
        self._read = lru_cache(16)(lambda number: self._group(run, path, number))
        self._sites = lru_cache(REMEMBERED)(self._site)

    def of(self, hosts: Iterable[str]) -> dict[str, SiteRules]:
        """Returns the sites that are known, by host."""
        return {host: site for host in sorted(hosts) if (site := self._sites(host)) is not None}

    def _site(self, host: str) -> SiteRules | None:
        files = self._rows(host)
        return SiteRules({name: self._final(row) for name, row in files.items()}) if files else None

    def _final(self, row: dict[str, Any]) -> dict[str, Any]:
        """Follows redirects as far as the crawl has their targets."""
        for _ in range(REDIRECTS):
            target = site_of(row["target"])
            row = self._rows(target).get(row["file"], row) if target else row
        return row

    def _rows(self, host: str) -> dict[str, dict[str, Any]]:
        groups = [number for number, (low, high) in enumerate(self.ends) if low <= host <= high]
        return {row["file"]: row for number in groups for row in self._read(number).get(host, [])}

    @staticmethod
    def _group(run: Storage, path: str, number: int) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        with open_parquet(run, path) as file:
            for row in file.read_row_group(number).to_pylist():
                found.setdefault(row["host"], []).append(row)
        return found


def site_table(run: Storage, refs: Iterable[FileRef]) -> pa.Table:
    """Returns the rows of all tables of `ingest`, by host and file: of each file the last answer that is no redirect, else the last one."""
    table = pa.concat_tables([SITES.empty_table(), *(read_table(run, ref.path) for ref in refs)])
    table = table.append_column("final", pc.is_null(table["target"]).cast(pa.int8()))
    table = table.sort_by([(name, "ascending") for name in ("host", "file", "final", "timestamp", "body")])
    table = table.append_column("place", pa.array(range(len(table)), pa.int64()))
    last = table.group_by(["host", "file"], use_threads=False).aggregate([("place", "max")])["place_max"]
    return table.take(pa.array(sorted(last.to_pylist()), pa.int64())).select(SITES.names)
