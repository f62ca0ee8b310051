"""What a proxy is, and what it measures; without torch, which only trainings need."""

import pyarrow as pa

from corpusmill.pipeline.config import Config
from corpusmill.train.options import ModelConfig, OptimizerConfig

#: A row a reference document: `source` is the file of its set; `nats` is what the model needed for its tokens.
REPORT = pa.schema(
    [
        pa.field("document", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("nats", pa.float64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("utf8_bytes", pa.int64(), nullable=False),
    ]
)


class ProxyConfig(Config):
    """What all proxies of a comparison have in common."""

    model: ModelConfig
    optimizer: OptimizerConfig
    batch: int
    draws: int
