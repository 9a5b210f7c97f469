"""The commands against a daemon in small."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from eventd.cli.app import run
from eventd.cli.client import Client
from eventd.cli.failure import Failure, Refused
from eventd.store.interface import LogLine

DEADLINE_S = 20.0


def line(text: str, request_id: str = "r1") -> LogLine:
    return LogLine(1_700_000_000_000, "demo", "hello", 0, request_id, "c-1", text)


def test_invoke_prints_the_result_alone(daemon: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code = run(["invoke", "demo/hello", "-q", "prod", "--event", '{"a": 1}'])

    assert code == 0
    assert capfd.readouterr() == ('{"a": 1}demo.prod', "")


def test_invoke_takes_the_event_from_a_file(
    daemon: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    event = tmp_path / "event.bin"
    event.write_bytes(b"\x00\x01 from a file ")

    assert run(["invoke", "demo/hello", "--event", str(event)]) == 0

    assert capfd.readouterr().out == "\x00\x01 from a file demo"


def test_invoke_takes_the_event_from_stdin(daemon: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eventd", "invoke", "demo/hello", "--event", "-"],
        input=b"piped ", capture_output=True, check=True, timeout=DEADLINE_S,
    )  # fmt: skip

    assert done.stdout == b"piped demo"


def test_a_failed_function_gives_exit_code_1_and_its_error(
    daemon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(["invoke", "demo/crash", "--log"])

    shown = capfd.readouterr()
    assert code == 1
    assert shown.out == '{"errorMessage":"boom"}'
    assert shown.err.startswith("a line\nUnhandledInvocationError, ")


def test_invoke_as_json_has_everything(daemon: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["invoke", "demo/crash", "--json"]) == 1

    answer = json.loads(capfd.readouterr().out)
    assert answer.pop("durationMs") >= 0
    assert answer == {
        "requestId": "r1",
        "status": 200,
        "version": "1",
        "errorType": "UnhandledInvocationError",
        "result": {"errorMessage": "boom"},
        "log": "a line\n",
    }


def test_an_asynchronous_call_prints_its_request_id(
    daemon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["invoke", "demo/hello", "--async"]) == 0

    assert capfd.readouterr().out == "r1\n"


def test_a_refusal_is_one_line_with_the_fc_code(
    daemon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(["invoke", "demo/gone"])

    assert code == 4
    assert capfd.readouterr().err == (
        "eventd: FunctionNotFound: function 'gone' does not exist in service 'demo' (request r9)\n"
    )


def test_a_wrong_key_is_refused(daemon: Any, capfd: pytest.CaptureFixture[str]) -> None:
    client = Client(daemon.url, daemon.access.access_key_id, "wrong")

    with pytest.raises(Refused) as caught:
        client.json("GET", "/eventd/v1/status")

    assert (caught.value.code, caught.value.status) == ("SignatureNotMatch", 403)


@pytest.mark.parametrize("name", ["demo", "/hello", "demo/", "a/b/c"])
def test_a_name_that_is_no_function_is_a_usage_error(
    daemon: Any, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["invoke", name]) == 2
    assert f"expected SERVICE/FUNCTION, got {name!r}" in capfd.readouterr().err


def test_logs_ask_for_what_was_asked(daemon: Any, capfd: pytest.CaptureFixture[str]) -> None:
    daemon.lines.kept += [line("an ERROR"), line("fine"), line("\x1b[2JERROR", "")]
    before = int(time.time() * 1000)

    assert run(["logs", "demo/hello", "--grep", "ERROR", "--since", "10m", "-n", "5"]) == 0

    (asked,) = daemon.lines.asked
    assert abs(before - 600_000 - asked.pop("since_ms")) < 60_000
    assert asked == {
        "service": "demo",
        "function": "hello",
        "request_id": "",
        "text": "ERROR",
        "until_ms": 0,
        "limit": 5,
    }
    first, second = capfd.readouterr().out.splitlines()
    assert first.endswith(".000 demo/hello r1 an ERROR")
    assert second.endswith(" c-1 \x1b[2JERROR")  # to a pipe: byte for byte


def test_following_prints_lines_as_they_come_and_ends_with_the_client(daemon: Any) -> None:
    daemon.lines.kept.append(line("old"))
    process = subprocess.Popen(
        [sys.executable, "-m", "eventd", "logs", "--follow", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: [lines.put(one) for one in process.stdout or ()])
    reader.start()

    assert json.loads(lines.get(timeout=DEADLINE_S))["text"] == "old"
    daemon.add(line("new"))
    assert json.loads(lines.get(timeout=DEADLINE_S))["text"] == "new"

    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    reader.join(DEADLINE_S)
    process.stdout.close()


def test_followers_end_when_the_daemon_closes(daemon: Any) -> None:
    process = subprocess.Popen([sys.executable, "-m", "eventd", "logs", "-f"])
    deadline = time.monotonic() + DEADLINE_S
    while daemon.lines.followers == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    daemon.call(daemon.closing.set)

    assert process.wait(DEADLINE_S) == 0
    while daemon.lines.followers:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"since": "-1"}, "since"),
        ({"until": "x"}, "until"),
        ({"follow": "yes"}, "follow"),
        ({"frm": "1"}, "frm"),
    ],
)
def test_a_wrong_log_query_names_the_field(daemon: Any, query: dict[str, str], field: str) -> None:
    access = daemon.access
    client = Client(daemon.url, access.access_key_id, access.access_key_secret)

    with pytest.raises(Refused, match=f"InvalidArgument: {field}: ") as caught:
        client.json("GET", "/eventd/v1/logs", **query)

    assert caught.value.status == 400


def test_status_shows_functions_triggers_instances_and_the_queue(
    daemon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy-demo", "--kafka", "127.0.0.1:1"]) == 0
    counts = daemon.metrics.function("demo", "hello", "1")
    counts.invocations, counts.errors = 2, 1
    counts.duration.observe(0.003)
    capfd.readouterr()

    assert run(["status", "--json"]) == 0

    status = json.loads(capfd.readouterr().out)
    assert status["queue"] == {"waiting": 3, "claimed": 1, "deadLetters": 2}
    hello = next(row for row in status["functions"] if row["function"] == "hello")
    assert (hello["instances"], hello["busy"], hello["waiting"]) == (1, 2, 4)
    assert (hello["invocations"], hello["errors"]) == (2, 1)
    assert 2 <= hello["p50Ms"] <= 5
    assert status["triggers"][0]["lag"] == 7
    assert status["instances"][0]["memoryMb"] == 31.2

    assert run(["status"]) == 0
    page = capfd.readouterr().out
    for part in ("demo/hello", "new-order", "broker away", "c-1", "2/10", "2 dead letters"):
        assert part in page


def test_dead_letters_are_listed_with_their_reason(
    daemon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["dead-letters"]) == 0

    shown = capfd.readouterr().out
    assert "shop/orders attempts: r1" in shown
    assert "boom" in shown


def test_the_demonstration_may_be_deployed_again(
    daemon: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy-demo", "--kafka", "127.0.0.1:1", "--json"]) == 0
    first = json.loads(capfd.readouterr().out)
    bodies = json.dumps(daemon.resources.bodies)

    assert run(["deploy-demo", "--kafka", "127.0.0.1:1", "--json"]) == 0

    second = json.loads(capfd.readouterr().out)
    assert {one["did"] for one in first} == {"created"}
    assert {one["did"] for one in second} == {"updated"}
    assert len(first) == 1 + 5 * 2
    assert json.dumps(daemon.resources.bodies) == bodies
    assert (daemon.data / "buckets" / "pictures").is_dir()


def test_without_a_broker_the_demonstration_has_no_kafka_function(
    daemon: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTD_KAFKA", raising=False)

    assert run(["deploy-demo"]) == 0

    assert "orders" not in capfd.readouterr().out


def test_probes_and_metrics_need_no_signature(daemon: Any) -> None:
    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(daemon.url + path, timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    assert get("/healthz") == (200, "ok\n")
    assert get("/readyz") == (200, "ready\n")
    daemon.reasons.append("draining")
    assert get("/readyz") == (503, "draining\n")
    assert get("/healthz")[0] == 200
    status, text = get("/metrics")
    assert status == 200
    assert "eventd_queue_waiting 3.0" in text
    assert get("/eventd/v1/status")[0] == 403


def test_no_daemon_is_exit_code_3(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTD_ENDPOINT", raising=False)
    assert run(["status", "--data", str(tmp_path)]) == 3
    assert "no daemon found in" in capfd.readouterr().err

    monkeypatch.setenv("EVENTD_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("EVENTD_ACCESS_KEY_SECRET", "b")
    assert run(["status", "--endpoint", "http://127.0.0.1:9"]) == 3
    assert capfd.readouterr().err.startswith("eventd: no answer from http://127.0.0.1:9: ")


@pytest.mark.parametrize("endpoint", ["ftp://x", "http://", "http://x:port", "http://x:99999"])
def test_an_endpoint_that_is_no_address_is_a_usage_error(endpoint: str) -> None:
    with pytest.raises(Failure, match="endpoint: expected"):
        Client(endpoint, "a", "b")


def test_serve_refuses_a_wrong_setting_with_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--set", "pool.blank=3"]) == 2
    assert capfd.readouterr().err == (
        "eventd: flag: unknown key 'pool.blank'; did you mean 'pool.blanks'?\n"
    )
    assert run(["serve", "--set", "pool.blanks"]) == 2
    assert run(["serve", "--listn", "x"]) == 2
    assert run(["nothing"]) == 2
    for error in capfd.readouterr().err.splitlines():
        assert error.startswith("eventd: ")


def test_a_reader_that_leaves_early_is_no_error(daemon: Any) -> None:
    daemon.lines.kept += [line("x" * 1000)] * 5000
    with subprocess.Popen(
        [sys.executable, "-m", "eventd", "logs", "-n", "5000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()

        assert process.stderr.read() == b""
        assert process.wait(DEADLINE_S) == 0


def test_doctor_says_what_this_machine_can_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--json", "--data", str(tmp_path / "not" / "there")]) == 0

    checks = {one["name"]: one for one in json.loads(capfd.readouterr().out)["checks"]}
    assert {"isolation", "SQLite", "disk sync", "Kafka", "file watches", "cgroups"} <= set(checks)
    assert checks["SQLite"]["state"] == "ok"
    assert "ms median" in checks["disk sync"]["found"]
    for one in checks.values():
        assert one["state"] in ("ok", "limited", "missing")
    assert list(tmp_path.iterdir()) == []
