"""The section `dedup` of a recipe."""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import Field, model_validator

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.names import instead_of
from corpusmill.text.word_rules import WordRule

ExactForm = Literal["none", "whitespace", "lowercase", "words"]
NearForm = Literal["none", "whitespace", "lowercase", "words", "datatrove", "redpajama", "refinedweb"]

#: The most minima that a signature may have: with 64 bits each they take 128 KB for a document.
MOST_MINIMA = 16_384


class ExactConfig(Config):
    """Exact copies: documents whose normalised texts have the same 128-bit hash."""

    enabled: bool = Field(default=True, description="remove exact copies")
    normalisation: ExactForm = Field(
        default="lowercase",
        description="what equal means: none (the bytes), whitespace (runs of white space are one space), lowercase (that, and case "
        "is ignored), words (that, and everything between words is ignored)",
    )


class MinHashConfig(Config):
    """Near copies: MinHash-LSH on n-grams proposes them, and the texts verify them."""

    enabled: bool = Field(default=True, description="remove near copies")
    unit: Literal["words", "characters"] = Field(default="words", description="what a shingle is made of")
    ngram: int = Field(default=5, ge=1, le=256, description="units in a shingle")
    word_rule: WordRule = Field(default="words", description="what a word is: the rules of the section `filter`, on the normalised text")
    normalisation: NearForm = Field(
        default="words",
        description="what is compared: none, whitespace, lowercase, words (as `exact` has them), or the text that datatrove, redpajama "
        "or refinedweb make of it (docs/stages/dedup.md)",
    )
    hash: Literal["corpusmill", "xxhash", "sha1"] = Field(
        default="corpusmill",
        description="how shingles are hashed and permuted; xxhash and sha1 are datatrove's, with its permutations: they "
        "find the pairs that it finds, more slowly",
    )
    bands: int = Field(default=14, ge=1, le=1024, description="bands of the signature: two documents with an equal band are candidates")
    rows: int = Field(default=8, ge=1, le=128, description="minima in a band")
    target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="take the bands and rows that are best for this similarity (the optimum of datasketch) instead of the two above",
    )
    permutations: int = Field(default=128, ge=2, le=2048, description="how many minima there may be at most when `target` is given")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="chooses the permutations")
    bits: Literal[32, 64] = Field(default=32, description="bits of a minimum")
    min_words: int = Field(
        default=10,
        ge=1,
        description="documents of fewer words (or characters, where those are the unit), and those shorter than one shingle, are compared "
        "only exactly",
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.target is None and self.bands * self.rows > MOST_MINIMA:
            raise ValueError(f"{self.bands} bands of {self.rows} rows are more than {MOST_MINIMA:,} minima")
        if self.hash == "xxhash" and self.bits != 64:
            raise ValueError("hash: xxhash needs bits: 64")
        return self


class UrlConfig(Config):
    """Several captures of one URL."""

    enabled: bool = Field(default=False, description="of documents with one URL keep one")
    normalisation: Literal["none", "syntax"] = Field(
        default="syntax",
        description="which URLs are one: none (the same bytes), syntax (RFC 3986, 6.2.2 and 6.2.3: case of scheme, host and escapes, "
        "default ports, an empty path, the fragment)",
    )
    keep: str | list[str] = Field(default="newest", description="which one stays; see `keep`")


class MeasureConfig(Config):
    """The options on which the measurements of documents depend: signatures, keys and indexes."""

    exact: ExactConfig = Field(default_factory=ExactConfig, description="exact copies")
    minhash: MinHashConfig = Field(default_factory=MinHashConfig, description="near copies")
    url: UrlConfig = Field(default_factory=UrlConfig, description="captures of one address")

    @property
    def copies_share_shingles(self) -> bool:
        """Whether exact copies always have equal shingles, so that one of them can stand for all in the buckets."""
        order: list[str] = list(get_args(ExactForm))
        near = self.minhash.normalisation if self.minhash.normalisation in order else "lowercase"  # other pipelines' forms do so, too
        spaces = self.minhash.unit == "words" and self.exact.normalisation == "whitespace"  # the spaces between words do not matter
        return spaces or order.index(near) >= order.index(self.exact.normalisation)


class ClusterConfig(MeasureConfig):
    """The options on which clusters depend: those of the measurements, and how copies are compared and chosen."""

    threshold: float = Field(default=0.75, gt=0, le=1, description="similarity to the kept document from which a near copy is removed")
    similarity: Literal["jaccard", "containment"] = Field(
        default="jaccard",
        description="of the shingles of both texts: jaccard (shared by both, of all), containment (the share of the removed text's "
        "shingles that the kept one has)",
    )
    verification: Literal["exact", "estimate"] = Field(
        default="exact", description="exact: on the shingles of both texts; estimate: on their signatures alone, which is off by about .04"
    )
    keep: str | list[str] = Field(
        default="longest",
        description="which copy stays: longest, quality (the column of that name), newest, oldest, first (by crawl file and place), "
        "sources, or an expression over columns (the highest value wins), such as `quality * log(chars)`; in a list the next one "
        "decides ties; the id decides the last ties",
    )
    sources: list[str] = Field(default=[], description="patterns of crawl files, the most trusted first, for `keep: sources`")
    max_cluster: int = Field(
        default=10_000, ge=2, description="how many near copies one document replaces at most; further ones stay and are reported"
    )
    bucket_limit: int = Field(
        default=1_000,
        ge=1,
        description="a document is compared with at most this many clusters of one LSH bucket, which bounds the work on templates",
    )
    by: str = Field(
        default="source",
        description="removals are counted by source (crawl files), host (of the URL), or a column of the documents",
    )


class IndexConfig(Config):
    """The index of earlier crawls."""

    path: str = Field(description="the index's folder, local or on a store; made where it is not there")
    name: str | None = Field(default=None, description="the name of this run's entry; by default the name of the run folder")
    extend: bool = Field(default=True, description="add this run to the index when it is finished")
    texts: bool = Field(
        default=True, description="keep texts in the index, to compare them exactly; without them later runs rest on signatures alone"
    )
    earlier: Literal["union", "fixed"] = Field(
        default="union",
        description="union: earlier documents take part as the new ones do, and the run says which of them a better copy replaces; "
        "fixed: what earlier runs kept stays, and new copies of it go",
    )


# ---- repeats inside documents --------------------------------------------------------------------------

LineUnit = Literal["line", "paragraph"]
LineForm = Literal["ccnet", "words", "none"]

#: The default of `min_count`, by `keep`.
LEAST_COUNT = {"first": 2, "none": 10}


class UnitsConfig(Config):
    """The options on which the counts of lines or paragraphs depend."""

    unit: LineUnit = Field(
        default="line", description="line: between newlines (CCNet's paragraph); paragraph: between two newlines or more (DCLM's, Dolma's)"
    )
    normalisation: LineForm = Field(
        default="ccnet",
        description="what equal means; space around a unit never counts. ccnet: lower case, digits are 0, without the punctuation of "
        "other scripts and control characters; words: lower case, digits are 0, letters and digits alone; none: the characters",
    )
    min_chars: int = Field(default=1, ge=1, description="shorter units are never cut")
    scope: Literal["corpus", "host"] = Field(
        default="corpus", description="host: repeats count within one host of URLs (a document without a URL belongs to its crawl file)"
    )


class LinesConfig(UnitsConfig):
    """Lines or paragraphs that repeat from document to document."""

    keep: Literal["first", "none"] = Field(
        default="none",
        description="none: boilerplate goes from every document; first: each repeated unit stays once (as CCNet's), in the document that "
        "comes first by input, shard and row",
    )
    min_count: int | None = Field(
        default=None,
        ge=2,
        description="how many documents must have a unit before it is cut (keep: none; 10 by default), or how often it must occur, "
        "within a document too (keep: first; 2 by default)",
    )
    min_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="with scope: host and keep: none, also the share of the host's documents that must have it; rounded up",
    )
    max_cut: float = Field(
        default=1.0, gt=0, le=1, description="a document that would lose a larger share of its characters is treated as `beyond` says"
    )
    beyond: Literal["leave", "drop"] = Field(
        default="leave", description="leave: the document stays whole; drop: it is dropped, by the rule mostly_repeated_lines"
    )
    top: int = Field(default=100, ge=0, le=10_000, description="how many of the most frequent cut units are listed in lines/top.parquet")

    @property
    def least(self) -> int:
        return self.min_count or LEAST_COUNT[self.keep]

    @property
    def units(self) -> UnitsConfig:
        """The options on which the counting tasks depend."""
        return UnitsConfig(**{name: getattr(self, name) for name in UnitsConfig.model_fields})

    @model_validator(mode="after")
    def _share_of_a_host(self) -> "LinesConfig":
        if self.min_share and (self.scope, self.keep) != ("host", "none"):
            raise ValueError("min_share needs scope: host and keep: none")
        return self


class SubstringsConfig(Config):
    """Passages that repeat word for word (ExactSubstr: Lee et al. 2022, arXiv 2107.06499)."""

    tokens: int = Field(
        default=50,
        ge=8,
        le=10_000,
        description="words in the shortest passage; words lie between spaces, and each character of a script without spaces is one",
    )
    keep: Literal["first", "none"] = Field(
        default="first", description="first: a passage stays where it comes first by input, shard, row and place; none: it goes everywhere"
    )

    @property
    def anchor(self) -> int:
        """Words of an anchor: half a passage."""
        return (self.tokens + 1) // 2


# ---- evaluation sets -----------------------------------------------------------------------------------


class FieldsConfig(Config):
    """The fields that hold the parts of an item. `a.b` is the field `b` of the object `a`, or of each object in the list `a`."""

    question: str | None = Field(default=None, description="the question, problem or prompt")
    context: str | None = Field(default=None, description="the passage that the question is about")
    choices: str | None = Field(default=None, description="the answers to choose from: a list, or an object of lists")
    answer: str | None = Field(default=None, description="the answer or solution")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any((self.question, self.context, self.choices, self.answer)):
            raise ValueError("name at least one of question, context, choices and answer")
        return self


class SetConfig(Config):
    """One evaluation set."""

    path: str = Field(description="a file, folder, glob or URL: JSONL, JSON, CSV, TSV, Parquet or Arrow; compressed and .zip too")
    name: str | None = Field(default=None, description="what reports call it; by default the file's name")
    fields: FieldsConfig | None = Field(default=None, description="the fields to match, where the format is none of the known ones")


class ContaminationConfig(Config):
    """The section `dedup.contamination` of a recipe.

    A text of an item is found in a document that contains all of it, ignoring case, punctuation and spaces. Otherwise the text is aligned
    with the document at each shared n-gram of `seed` words, unless more than `common` items of the set have that n-gram. The text is found
    if, in a window a quarter longer than the text, at least `ngram` words agree (for a short text `short_share` of its words, and at least
    `min_ngram`, or all but one if it has no more), and also at least `share` of its own words: those in n-grams that at most `common` items
    of the set have. Numbers don't count if there are `min_ngram` other words. A question with choices that any quiz may have counts only
    with its choices.

    Published practice counts any single n-gram of 8 to 13 words. To do the same, set `seed`, `ngram`, `min_ngram` and `min_words` to that
    number and `share` to 0.
    """

    sets: list[str | SetConfig] = Field(min_length=1, description="the evaluation sets: paths, or objects of path, name and fields")
    action: Literal["drop", "cut", "report"] = Field(
        default="drop",
        description="drop the document, cut the passage out of it, or only say so in the report",
    )
    seed: int = Field(default=4, ge=2, le=64, description="a text is aligned with a document at shared n-grams of this many words")
    share: float = Field(default=0.6, ge=0, le=1, description="the smallest share of a text's own words that must agree")
    ngram: int = Field(default=13, ge=2, le=64, description="how many words of a text must agree at least")
    short_share: float = Field(default=0.81, ge=0, le=1, description="of a short text, this share of its words is enough")
    min_ngram: int = Field(default=8, ge=2, le=64, description="but never fewer words than this")
    min_words: int = Field(default=7, ge=2, description="shorter texts are never looked for")
    common: int = Field(default=20, ge=1, description="a text or n-gram that more items of one set than this have is boilerplate")
    keep_words: int = Field(default=50, ge=0, description="with `action: cut`, a document that has fewer words left is dropped")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for smaller, larger in (("seed", "min_ngram"), ("min_ngram", "ngram"), ("seed", "min_words")):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(f"{smaller} ({getattr(self, smaller)}) can't be larger than {larger} ({getattr(self, larger)})")
        return self

    def of_index(self) -> "ContaminationConfig":
        """The options on which the index of the sets depends; all others have their defaults."""
        return self.model_copy(update={"action": "drop", "share": 0.6, "keep_words": 50})

    def set_configs(self) -> list[SetConfig]:
        return [SetConfig(path=given) if isinstance(given, str) else given for given in self.sets]


# ---- the section, and its presets ----------------------------------------------------------------------

#: By preset: the keys of the section `dedup` that it sets.
PRESETS: dict[str, dict[str, Any]] = {
    # FineWeb (arXiv 2406.17557, 3.4: 5-grams, 14 x 8, "at least 75% similar"), with datatrove 0.10's text and permutations.
    # SHA-1 was datatrove's only hash when FineWeb was made. Texts of five words or more have a signature.
    "fineweb": {
        "threshold": 0.75,
        "minhash": {
            "ngram": 5, "word_rule": "spacy", "normalisation": "datatrove", "hash": "sha1", "bits": 64, "bands": 14, "rows": 8,
            "min_words": 1,
        },
    },
    # RedPajama v2 (app/src/dedupe/minhash.py): 13-grams of normalised words, 128 permutations of 32 bits, bands and rows by similarity.
    "redpajama": {
        "threshold": 0.8,
        "minhash": {
            "ngram": 13, "word_rule": "whitespace", "normalisation": "redpajama", "target": 0.8, "permutations": 128, "min_words": 1,
        },
    },
    # Olmo 3 (26 x 11 for .80) used duplodocus. Its README gives these parameters, with 5-grams of cl100k_base tokens; here of words.
    "olmo3": {"threshold": 0.8, "minhash": {"ngram": 5, "bands": 26, "rows": 11, "seed": 42, "min_words": 1}},
    # NeMo Curator's FuzzyDeduplicationWorkflow: 24 characters of the raw text, 20 x 13, whose S-curve is steepest at .79.
    "nemo": {
        "threshold": 0.8,
        "minhash": {"unit": "characters", "ngram": 24, "normalisation": "none", "bands": 20, "rows": 13, "seed": 42, "min_words": 1},
    },
    # RefinedWeb (arXiv 2306.01116, G.3.1): 5-grams of GPT-2 tokens, here of words; 450 x 20, whose S-curve is steepest at .74. The paper
    # names no threshold.
    "refinedweb": {
        "threshold": 0.75,
        "minhash": {"ngram": 5, "word_rule": "whitespace", "normalisation": "refinedweb", "bands": 450, "rows": 20, "min_words": 1},
    },
}  # fmt: skip


def with_preset(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a section `dedup` with the keys of its preset filled in. Raises ValueError for an unknown preset."""
    name, given = section.get("preset"), section.get("minhash") or {}
    if name is None or not isinstance(given, Mapping):
        return dict(section)
    if name not in PRESETS:
        raise ValueError(f"preset: {name!r} is unknown{instead_of(str(name), PRESETS)}")
    preset = PRESETS[name]
    minhash = {**preset["minhash"], **given}
    if "target" in preset["minhash"] and "target" not in given:  # it follows the recipe's threshold, unless bands or rows are given
        threshold = section.get("threshold")
        if {"bands", "rows"} & given.keys():
            minhash["target"] = None
        elif isinstance(threshold, float) and threshold < 1:
            minhash["target"] = threshold
    return {**preset, **section, "minhash": minhash}


class DedupConfig(ClusterConfig):
    """The section `dedup` of a recipe."""

    preset: str | None = Field(
        default=None,
        description="the MinHash and the threshold of a published pipeline (dedup/config.py); keys in the recipe override it",
    )
    alarm_share: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="a source (or host or value, see `by`) that loses a larger share of its documents raises an alarm",
    )
    alarm_documents: int = Field(default=20, ge=1, description="a source (or host or value, see `by`) with fewer documents raises no alarm")
    alarm: Literal["stop", "warn"] = Field(default="stop", description="stop: an alarm ends the run before any document is removed")
    index: IndexConfig | None = Field(default=None, description="earlier crawls")
    audit: int = Field(
        default=1_000,
        ge=0,
        le=20_000,
        description="pairs of planted copies by which the run measures its recall; at most one for each document; 0: none",
    )
    lines: LinesConfig | None = Field(default=None, description="lines or paragraphs that repeat across documents; null: left alone")
    contamination: ContaminationConfig | None = Field(default=None, description="evaluation sets whose items must not be in documents")
    substrings: SubstringsConfig | None = Field(default=None, description="passages that repeat word for word; null: left alone")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, section: Any) -> Any:
        return with_preset(section) if isinstance(section, Mapping) else section

    @model_validator(mode="after")
    def _policies(self) -> Self:
        from corpusmill.dedup.policy import check_policy

        for keep in (self.keep, self.url.keep):
            check_policy(keep, self.sources)
        return self

    def part(self, schema: type["Part"]) -> "Part":
        """Returns the options on which a phase depends, those of `schema`."""
        return schema.model_validate({name: getattr(self, name) for name in schema.model_fields})


Part = TypeVar("Part", bound=MeasureConfig)
