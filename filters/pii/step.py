"""The step `pii`: personal data and secrets give way to placeholders that are the same everywhere."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Self

import pyarrow as pa
from pydantic import Field, create_model, model_validator

from corpusmill.filters.pii.kinds import KINDS, Kind
from corpusmill.filters.rules import Rule
from corpusmill.filters.step import Batch, Measured, Step
from corpusmill.pipeline.config import Config

if TYPE_CHECKING:
    from corpusmill.filters.pii.spans import Spans, Texts


class _Options(Config):
    kinds: tuple[str, ...] = Field(
        tuple(kind.name for kind in KINDS), description="The kinds that are looked for; what is left out is neither counted nor replaced."
    )
    phone_regions: tuple[str, ...] | None = Field(
        None, description="Countries (ISO 3166) whose national phone numbers are looked for; by default about 40 large ones."
    )
    most: dict[str, int] = Field(
        {}, description="A document fails with more finds of a kind than this: `{email: 20}` makes the rule `pii_emails`. None by default."
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        names = [kind.name for kind in KINDS]
        for name in self.kinds:
            if name not in names:
                raise ValueError(f"kinds: no such kind: {name!r} (expected one of {', '.join(names)})")
        for name, limit in self.most.items():
            if name not in self.kinds:
                raise ValueError(f"most.{name}: no such kind (expected one of {', '.join(self.kinds)})")
            if limit < 0:
                raise ValueError(f"most.{name}: {limit} is below 0")
        if self.phone_regions is not None:
            from phonenumbers import SUPPORTED_REGIONS

            for region in self.phone_regions:
                if region not in SUPPORTED_REGIONS:
                    raise ValueError(f"phone_regions: {region!r} is no country with a numbering plan (ISO 3166, such as US)")
        return self


#: One option a kind: what stands for it.
PiiConfig = create_model(
    "PiiConfig",
    __base__=_Options,
    __doc__="What stands for each kind of personal data and secrets.",
    **{
        kind.name: (str | None, Field(kind.placeholder, description=f"What stands for {kind.description}; null leaves it as it is."))
        for kind in KINDS
    },
)  # type: ignore[call-overload]


class Pii(Step):
    Config = PiiConfig
    MEANINGS = {kind.column: f"{{count}} finds of {kind.description}" for kind in KINDS}
    rewrites = True

    @property
    def kinds(self) -> list[Kind]:
        """Those that are looked for, in the order in which they take text."""
        return [kind for kind in KINDS if kind.name in self.config.kinds]

    @property
    def columns(self) -> dict[str, pa.DataType]:
        return {kind.column: pa.int64() for kind in self.kinds}

    @property
    def rules(self) -> tuple[Rule, ...]:
        limits = self.config.most
        return tuple(Rule(kind.column, kind.column, ">", limits[kind.name]) for kind in self.kinds if kind.name in limits)

    def measure(self, batch: Batch) -> Measured:
        """Counts what is found, whether it is replaced or not."""
        from corpusmill.filters.pii.spans import Texts, counts, replaced, without_overlaps  # compiled kernels

        texts = Texts(batch.text)
        found = without_overlaps([self._find(texts, kind.module) for kind in self.kinds])
        columns = {kind.column: counts(texts, spans) for kind, spans in zip(self.kinds, found)}
        return Measured(columns, replaced(batch.text, texts, self._replacements(found)))

    def _find(self, texts: "Texts", module: str) -> "Spans":
        find = import_module(f"corpusmill.filters.pii.{module}").find
        options = {"regions": self.config.phone_regions} if module == "phones" and self.config.phone_regions is not None else {}
        spans: Spans = find(texts, **options)
        return spans

    def _replacements(self, found: "Sequence[Spans]") -> "list[tuple[Spans, str]]":
        placeholders = [getattr(self.config, kind.name) for kind in self.kinds]
        return [(spans, text) for spans, text in zip(found, placeholders) if text is not None]
