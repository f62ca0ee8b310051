"""The section `ablate` of a recipe, and what a proxy is and measures; without torch, which only trainings need."""

import re
from dataclasses import dataclass

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from corpusmill.ablate import corpora
from corpusmill.pipeline.config import Config
from corpusmill.train.options import ModelConfig, OptimizerConfig

#: The parts of a document that are measured: tokens from the first on, up to the last.
BANDS = ((0, 64), (64, 256), (256, 1024))
#: A row a band of a reference document: `source` is the file of its set; `nats` is what the model needed for its tokens.
REPORT = pa.schema(
    [
        pa.field("document", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("band", pa.int8(), nullable=False),
        pa.field("nats", pa.float64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
    ]
)
#: A row a reference document of which a paragraph is to be told from two others: by how many nats the document before it makes each more
#: likely: the paragraph that follows, one from further on, and one of another document.
CHOICES = pa.schema(
    [
        pa.field("document", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("next", pa.float64(), nullable=False),
        pa.field("later", pa.float64(), nullable=False),
        pa.field("other", pa.float64(), nullable=False),
    ]
)
#: Steps of a training, at least: fewer show nothing.
FEWEST_STEPS = 20


class ProxyConfig(Config):
    """What all proxies of a comparison have in common."""

    model: ModelConfig
    optimizer: OptimizerConfig
    batch: int
    draws: int


class MixtureSearch(Config):
    """A search for a mixture of the first variant's components."""

    proxies: int = Field(default=64, ge=8, le=10_000, description="Mixtures that are tried, with a proxy each.")
    by: str = Field(default="host", description="The components: `host`, or a column of the documents (of a column of numbers, quarters).")


class AblateConfig(Config):
    """The options of a comparison."""

    variants: dict[str, str] = Field(
        description="What is compared, by name: runs, recipes (.yaml, run on the inputs) or folders of token shards. The first is the "
        "one that the others are compared with."
    )
    references: tuple[str, ...] = Field(
        default=("wikipedia", "brown"),
        description=f"What judges, besides held-out documents: texts that ship with packages ({', '.join(corpora.SHIPPED)}), files of "
        f"texts, or the right answers of benchmarks ({', '.join(corpora.BENCHMARKS)}).",
    )
    held_out: int = Field(default=100, ge=0, description="Documents of the union of all variants that are held out, and judge too.")
    tokenizer: str | None = Field(default=None, description="A tokenizer.json; by default one is trained on texts of all variants.")
    vocab_size: int = Field(default=4096, ge=512, description="Tokens of a tokenizer that is trained.")
    model: ModelConfig = Field(default_factory=lambda: ModelConfig(preset="0.8m", context=1024), description="The proxy model.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="Its optimiser.")
    batch: int = Field(default=2, ge=1, description="Rows of `model.context` tokens in a step.")
    tokens: int | None = Field(default=None, ge=1, description="Tokens of a training; by default as many as the budget allows.")
    budget: str = Field(default="30m", description="Time for all trainings on this machine: 30m, 2h.")
    draws: int = Field(
        default=8, ge=2, le=64, description="Parts of the documents, each with a seed; every variant trains one proxy on each."
    )
    rate: float = Field(
        default=1.0,
        gt=0,
        description="Factor of the learning rates. Small models rank data better with low rates (arXiv 2512.24503): 1 is a quarter of what "
        "is best for 0.8m on reference text.",
    )
    leave_one_out: bool = Field(
        default=False, description="Compare the run, the only variant, with what it would be without each rule of its filter."
    )
    mixtures: MixtureSearch | None = Field(default=None, description="Search for better weights of the components of the only variant.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="How often all intervals hold together.")

    @field_validator("budget")
    @classmethod
    def _is_time(cls, given: str) -> str:
        seconds_of(given)
        return given

    @field_validator("variants")
    @classmethod
    def _named(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}", name):
                raise ValueError(f"{name!r} is no name of a variant: letters, digits and _.+- only")
        return given

    @model_validator(mode="after")
    def _trainable(self) -> "AblateConfig":
        if self.model.folder is not None:
            raise ValueError("model: proxies are new models, so give a size and not a folder")
        at_once = self.batch * self.model.architecture(1).context
        if self.tokens is not None and self.tokens < FEWEST_STEPS * at_once:
            raise ValueError(
                f"tokens: {self.tokens:,} are fewer than {FEWEST_STEPS} steps of {at_once:,}, from which nothing can be seen; give more"
            )
        return self


def seconds_of(budget: str) -> float:
    """Returns the seconds of `90s`, `30m` or `2h`. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not found or not float(found[1]):
        raise ValueError(f"{budget!r} is no time such as 90s, 30m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@dataclass(frozen=True)
class AblatePlan:
    """The size of a training: `steps`, on one `step_seconds` CPU thread or GPU, and all trainings side by side on `workers`."""

    steps: int
    tokens: int
    step_seconds: float | None
    workers: int
