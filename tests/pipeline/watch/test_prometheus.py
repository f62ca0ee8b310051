"""Metrics by themselves: who may ask for them, where they are written, and what they are called."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from metric_values import values

from corpusmill.pipeline.engine import Done
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.watch.events import Event
from corpusmill.pipeline.watch.meters import FAMILIES, Counting
from corpusmill.pipeline.watch.prometheus import Prometheus, check_writable


def test_counts_are_served_on_loopback_alone() -> None:
    prometheus = Prometheus()
    counting = Counting([prometheus])
    counting.run("demo", "1")
    counting.phase_begins("filter", "", 5, 4, 2)
    counting.done("filter", "", Done("part-0", [], 10, 7, 3, 1000, {}, [], 0.7, 512))
    counting.event(Event("death", "filter", "", "part-1", "died"))
    with prometheus.served("127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
            assert not answer.headers.get("Access-Control-Allow-Origin")
        assert values(text, "corpusmill_tasks_in_flight", "stage") == {("filter",): 2.0} and values(
            text, "corpusmill_tasks_left", "stage"
        ) == {("filter",): 3.0}
        assert values(text, "corpusmill_tasks_taken_over_total", "stage") == {("filter",): 1.0}
        assert values(text, "corpusmill_rows_total", "fate") == {("in",): 10.0, ("kept",): 7.0, ("dropped",): 3.0}
        assert values(text, "corpusmill_task_peak_memory_bytes", "stage") == {("filter",): 512.0 * 2**20}
        for headers, path, code in (
            ({"Host": f"evil.test:{port}"}, "/metrics", 421),
            ({"Sec-Fetch-Site": "cross-site"}, "/metrics", 403),
            ({}, "/other", 404),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers))
            assert refused.value.code == code
        with (
            pytest.raises(InputError, match=rf"--metrics-port {port}: 127.0.0.1 can't be listened to"),
            Prometheus().served("127.0.0.1", port),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_a_file_for_metrics_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--metrics-file .*none/x.prom: the folder"):
        check_writable(str(tmp_path / "none/x.prom"))
    check_writable("x.prom")


def test_names_of_metrics_are_those_of_opentelemetry() -> None:
    for family in FAMILIES.values():
        assert family.name.startswith("corpusmill_") and family.name.endswith("_total") == (family.kind == "counter")
        assert not {"name", "le", "job", "instance"} & set(family.labels)


def test_how_many_tasks_are_in_flight_is_not_told_where_the_workers_are_not_known() -> None:
    prometheus = Prometheus()
    Counting([prometheus]).phase_begins("filter", "", 5, 4, None)
    with prometheus.served("127.0.0.1", 0) as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    assert values(text, "corpusmill_tasks_left", "stage") == {("filter",): 4.0}
    assert values(text, "corpusmill_tasks_in_flight", "stage") == {}
