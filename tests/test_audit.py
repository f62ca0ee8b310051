"""Tests `make audit` with a failing pip-audit: processes that end as pip-audit ends replace it."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOUND = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
UNREACHABLE = """Traceback (most recent call last):
  File "adapters.py", line 1, in send
    raise ProxyError(e, request=request)
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev', port=443): Max retries exceeded with url: /v1/query"""
BROKEN = """Traceback (most recent call last):
  File "pip_audit.py", line 1, in <module>
    from requests import ConnectionError
ImportError: cannot import name 'urllib3'"""


@pytest.fixture(scope="module")
def audit() -> Any:
    where = Path(__file__).resolve().parents[1] / ".ci/audit.py"
    spec = importlib.util.spec_from_file_location("audit", where)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in(code: int, out: str = "", error: str = "", seconds: float = 0) -> list[str]:
    said = f"import sys, time; time.sleep({seconds}); print({out!r}); print({error!r}, file=sys.stderr); sys.exit({code})"
    return [sys.executable, "-c", said]


def test_an_answer_counts_with_weaknesses(audit: Any) -> None:
    assert audit.answer(stand_in(1, json.dumps(FOUND), "Found 1 known vulnerability")) == FOUND


def test_only_the_network_excuses(audit: Any) -> None:
    assert audit.answer(stand_in(1, error=UNREACHABLE)) is None
    assert audit.answer(stand_in(0, json.dumps(FOUND), seconds=20), seconds=0.2) is None


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (2, "usage: pip-audit\npip-audit: error: unrecognized arguments: --timed out", r"exit code 2\): pip-audit: error: unrecognized"),
        (1, BROKEN, r"exit code 1\): ImportError: cannot import name 'urllib3'$"),
        (0, "", r"exit code 0\): it says nothing"),
    ],
)
def test_whatever_else_fails_is_a_fault(audit: Any, code: int, error: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        audit.answer(stand_in(code, "", error))
