"""Tests what counts in the digest of a configuration."""

from pydantic import Field

from corpusmill.pipeline.config import INERT, Config, config_digest


class Inner(Config):
    steps: int = 1
    log: tuple[str, ...] = Field(default=(), json_schema_extra=INERT)


class Outer(Config):
    inner: Inner = Inner()
    shown: int = Field(default=3, json_schema_extra=INERT)
    rate: float = 0.5


class Plain(Config):
    inner: dict[str, int] = {"steps": 1}
    rate: float = 0.5


def test_fields_that_change_no_result_do_not_count_at_any_depth() -> None:
    same = Outer.model_validate({"shown": 9, "inner": {"log": ["tensorboard"]}})
    assert config_digest(Outer()) == config_digest(same) == config_digest(Plain())
    for other in ({"rate": 0.6}, {"inner": {"steps": 2}}):
        assert config_digest(Outer.model_validate(other)) != config_digest(Outer())
