"""Which texts a classifier has learned from: `training.hashes` in its folder, so that an evaluation can say what it has seen before."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.filters.classifier.card import Form
from corpusmill.filters.classifier.forms import write_form
from corpusmill.pipeline.errors import InputError

#: In a classifier's folder: XXH3-64 of each line that it was trained, calibrated or thresholded on, little-endian uint64, ascending.
FILE = "training.hashes"
Hashes = npt.NDArray[np.uint64]


def hash_lines(lines: pa.Array) -> Hashes:
    """XXH3-64 (n,) of texts that are written in the classifier's form."""
    return np.array([xxhash.xxh3_64_intdigest(line.encode()) for line in lines.to_pylist()], np.uint64)


def hashes_file(hashes: Hashes) -> bytes:
    """The content of `training.hashes`."""
    return np.unique(hashes).astype("<u8").tobytes()


def in_training(folder: str | Path, form: Form, text: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Whether the classifier has learned from each text (n,), equal but for what its form leaves out; None where it does not say what it
    has learned from. Raises InputError where its file is damaged."""
    path = Path(folder) / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    if len(content) % 8:
        raise InputError(f"{path}: not a list of 64-bit hashes ({len(content):,} bytes).")
    seen = np.frombuffer(content, "<u8")
    if np.any(seen[1:] <= seen[:-1]):
        raise InputError(f"{path}: damaged, its hashes do not ascend.")
    hashes = hash_lines(write_form(form, text))
    places = np.searchsorted(seen, hashes)
    return np.asarray((places < len(seen)) & (np.append(seen, np.uint64(0))[places] == hashes))
