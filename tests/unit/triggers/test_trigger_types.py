"""Configs, conflicts and payloads of the built-in types."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.errors import InvalidArgument
from eventd.model.resources import TriggerRecord
from eventd.plugin import SourceSettings, Trigger, TriggerType
from eventd.sources import typed_trigger
from triggers.http import HttpTrigger
from triggers.log import LogTrigger
from triggers.oss import OssTrigger
from triggers.oss.events import Change, change_event, event_time, object_key, parse_arn, rule_id
from triggers.oss.settling import Settling
from triggers.oss.snapshot import Snapshot, row_key, row_path
from triggers.timer import TimerTrigger

ARN = "acs:oss:cn-test-1:1200340056007800:photos"
SETTINGS = SourceSettings(Path("/data"), "1200340056007800", "cn-local")
NOW = event_time(datetime(2026, 11, 24, 3, 7, 2, 345678, tzinfo=UTC))


def record(type_: str, config: Any, **fields: Any) -> TriggerRecord:
    base = TriggerRecord(
        service="s",
        function="f",
        name="t",
        trigger_id="id-1",
        type=type_,
        source_arn=ARN,
        invocation_role=None,
        qualifier=None,
        description="",
        config=config,
        etag="e",
        created_time="2026-11-24T00:00:00Z",
        last_modified_time="2026-11-24T00:00:00Z",
    )
    return replace(base, **fields)


def typed(adapter: TriggerType[Any], config: Any, **fields: Any) -> Trigger[Any]:
    return typed_trigger(record(adapter.name, config, **fields), adapter)


@pytest.mark.parametrize(
    ("adapter", "config", "field"),
    [
        (OssTrigger(), {}, "triggerConfig.events"),
        (OssTrigger(), {"events": []}, "triggerConfig.events"),
        (OssTrigger(), {"events": "oss:ObjectCreated:*"}, "triggerConfig.events"),
        (OssTrigger(), {"events": ["ObjectCreated:*"]}, "triggerConfig.events"),
        (OssTrigger(), {"events": ["oss:ObjectCreated:*"], "filter": 1}, "triggerConfig.filter"),
        (
            OssTrigger(),
            {"events": ["oss:ObjectCreated:*"], "filter": {"key": {"prefix": 5}}},
            "triggerConfig.filter.key.prefix",
        ),
        (TimerTrigger(), {}, "triggerConfig.cronExpression"),
        (TimerTrigger(), {"cronExpression": 5}, "triggerConfig.cronExpression"),
        (TimerTrigger(), {"cronExpression": "0 0 0 L * ?"}, "triggerConfig.cronExpression"),
        (TimerTrigger(), {"cronExpression": "@every 1m", "enable": 1}, "triggerConfig.enable"),
        (TimerTrigger(), {"cronExpression": "@every 1m", "payload": {}}, "triggerConfig.payload"),
        (TimerTrigger(), {"cronExpression": "@every 1m", "catchUp": "x"}, "triggerConfig.catchUp"),
        (HttpTrigger(), {"methods": ["GET"], "authType": "jwt"}, "triggerConfig.authType"),
        (HttpTrigger(), {"authType": "anonymous"}, "triggerConfig.methods"),
        (HttpTrigger(), {"methods": []}, "triggerConfig.methods"),
        (HttpTrigger(), {"methods": ["GET", "BREW"]}, "triggerConfig.methods.1"),
        (
            HttpTrigger(),
            {"methods": ["GET"], "disableURLInternet": "yes"},
            "triggerConfig.disableURLInternet",
        ),
        (LogTrigger(), {}, "triggerConfig"),
        (LogTrigger(), {"sourceConfig": {}}, "triggerConfig.sourceConfig.logstore"),
        (
            LogTrigger(),
            {"sourceConfig": {"logstore": "a"}, "logConfig": {"logstore": "a"}},
            "triggerConfig",
        ),
        (
            LogTrigger(),
            {"sourceConfig": {"logstore": "a"}, "jobConfig": {"triggerInterval": 2}},
            "triggerConfig.jobConfig.triggerInterval",
        ),
        (
            LogTrigger(),
            {"sourceConfig": {"logstore": "a"}, "jobConfig": {"maxRetryTime": 101}},
            "triggerConfig.jobConfig.maxRetryTime",
        ),
        (LogTrigger(), {"path": ""}, "triggerConfig.path"),
        (LogTrigger(), {"path": "a", "batchLine": 5}, "triggerConfig"),
        (LogTrigger(), {"path": "a", "startingPosition": "now"}, "triggerConfig.startingPosition"),
    ],
)
def test_a_bad_config_is_refused_with_the_path_of_its_field(
    adapter: TriggerType[Any], config: Any, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        typed(adapter, config)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("adapter", "config"),
    [
        (OssTrigger(), {"events": ["oss:ObjectCreated:*", "oss:ObjectRemoved:*"], "filter": None}),
        (OssTrigger(), {"events": ["oss:ObjectCreated:*"], "filter": {"Key": {"Prefix": "a"}}}),
        (TimerTrigger(), {"cronExpression": "@every 5m", "enable": False, "payload": None}),
        (TimerTrigger(), {"cronExpression": "0 2 * * * *", "unknown": 1}),
        (HttpTrigger(), {"methods": ["GET", "HEAD"], "authType": "anonymous"}),
        (HttpTrigger(), {"methods": ["POST"], "authConfig": None}),
        (LogTrigger(), {"path": "*.log", "flushPartialSeconds": 1, "functionParameter": {"a": 1}}),
        (
            LogTrigger(),
            {
                "sourceConfig": {"logstore": "access"},
                "jobConfig": {"maxRetryTime": 0, "triggerInterval": 60},
                "functionParameter": {},
                "logConfig": {"project": "", "logstore": ""},
                "enable": False,
            },
        ),
    ],
)
def test_a_good_config_is_taken(adapter: TriggerType[Any], config: Any) -> None:
    assert typed(adapter, config).raw_config == config


@pytest.mark.parametrize(
    "arn",
    [None, "", "photos", "acs:oss:r:1:", "acs:oss:r:1:../etc", "acs:oss:r:1:a/b", "acs:oss:r:b"],
)
def test_a_bad_bucket_arn_is_refused(arn: str | None) -> None:
    trigger = typed(OssTrigger(), {"events": ["oss:ObjectCreated:*"]}, source_arn=arn)

    with pytest.raises(InvalidArgument) as caught:
        OssTrigger().validate(trigger, SETTINGS)

    assert caught.value.field == "sourceArn"


PUT, POST, ANY = "PutObject", "PostObject", "*"


@pytest.mark.parametrize(
    ("event", "prefix", "suffix", "refused"),
    [
        (ANY, "source", "zip", True),
        (PUT, "source", "1zip", True),
        (PUT, "source1", "zip", True),
        (PUT, "source", "", True),
        (PUT, "", "zip", True),
        (PUT, "sour", "ip", True),
        (PUT, "source1", "zip1", False),
        (PUT, "1source", "1zip", False),
        (POST, "source", "zip", False),
    ],
)
def test_two_triggers_conflict_as_fc_says(
    event: str, prefix: str, suffix: str, refused: bool
) -> None:
    def config(event: str, prefix: str, suffix: str) -> Any:
        key = {"prefix": prefix, "suffix": suffix}
        return {"events": [f"oss:ObjectCreated:{event}"], "filter": {"key": key}}

    oss = OssTrigger()
    existing = typed(oss, config(PUT, "source", "zip"))
    new = typed(oss, config(event, prefix, suffix), trigger_id="id-2", name="other")
    elsewhere = typed(oss, config(event, prefix, suffix), trigger_id="id-3", source_arn=ARN + "-2")

    assert bool(oss.conflict(new, existing)) is refused
    assert bool(oss.conflict(existing, new)) is refused
    assert oss.conflict(elsewhere, existing) is None
    assert oss.conflict(existing, existing) is None


def test_one_http_trigger_for_a_qualifier() -> None:
    http = HttpTrigger()
    first = typed(http, {"methods": ["GET"]})

    def other(**fields: Any) -> Trigger[Any]:
        return typed(http, {"methods": ["GET"]}, trigger_id="id-2", name="u", **fields)

    assert "'t'" in (http.conflict(other(), first) or "")
    assert http.conflict(other(qualifier="prod"), first) is None
    assert http.conflict(other(function="g"), first) is None
    assert http.conflict(first, first) is None
    assert http.source_key(first, SETTINGS) is None


def test_the_event_of_an_object_is_that_of_fc() -> None:
    oss = OssTrigger()
    trigger = typed(oss, {"events": ["oss:ObjectCreated:*"]})
    change = Change("in/cat.jpg", old="", new="17:20480:1700000000000000000")

    event = change_event(parse_arn(ARN), change, NOW)
    body = json.loads(oss.payload(event, trigger, SETTINGS))

    assert event.type == "oss:ObjectCreated:PutObject"
    etag = body["events"][0]["oss"]["object"].pop("eTag")
    request_id = body["events"][0]["responseElements"].pop("requestId")
    assert len(etag) == 32
    assert etag == etag.upper()
    assert len(request_id) == 24
    assert body == {
        "events": [
            {
                "eventName": "ObjectCreated:PutObject",
                "eventSource": "acs:oss",
                "eventTime": "2026-11-24T03:07:02.000Z",
                "eventVersion": "1.0",
                "oss": {
                    "bucket": {
                        "arn": ARN,
                        "name": "photos",
                        "ownerIdentity": "1200340056007800",
                        "virtualBucket": "",
                    },
                    "object": {
                        "deltaSize": 20480,
                        "key": "in/cat.jpg",
                        "objectMeta": {"mimeType": "image/jpeg"},
                        "size": 20480,
                    },
                    "ossSchemaVersion": "1.0",
                    "ruleId": rule_id("id-1"),
                },
                "region": "cn-test-1",
                "requestParameters": {"sourceIPAddress": "127.0.0.1"},
                "responseElements": {},
                "userIdentity": {"principalId": "1200340056007800"},
            }
        ]
    }


paths = st.lists(
    st.binary(min_size=1, max_size=6).filter(lambda raw: b"/" not in raw and b"\0" not in raw),
    min_size=1,
    max_size=3,
).map(lambda parts: b"/".join(parts).decode(errors="surrogateescape"))


@given(path=paths, rule=st.text("0123456789abcdef", min_size=40, max_size=40))
def test_any_name_gives_json_with_its_key_and_rule(path: str, rule: str) -> None:
    from triggers.oss.events import with_rule

    event = change_event(parse_arn(ARN), Change(path, "1:5:1", "1:2:2"), NOW)
    oss = json.loads(with_rule(event.data, rule))["events"][0]["oss"]

    assert (oss["object"]["key"], oss["ruleId"]) == (object_key(path), rule)
    assert oss["object"]["deltaSize"] == -3


def test_a_key_that_looks_like_a_rule_id_is_left_alone() -> None:
    from triggers.oss.events import with_rule

    event = change_event(parse_arn(ARN), Change('"ruleId":""', "", "1:2:2"), NOW)
    oss = json.loads(with_rule(event.data, "f" * 40))["events"][0]["oss"]

    assert (oss["object"]["key"], oss["ruleId"]) == ('"ruleId":""', "f" * 40)


@given(st.dictionaries(paths, st.text("0123456789:", min_size=1), max_size=30), st.data())
def test_a_snapshot_is_a_table_of_clean_text(files: dict[str, str], data: st.DataObject) -> None:
    rows = {row_key(path): text for path, text in files.items()}
    for key in rows:
        key.encode()
    snapshot = Snapshot(rows)

    assert len(rows) == len(snapshot) == len(files)
    assert {path: snapshot.get(path) for path in files} == files
    assert all(row_path(row_key(path)) == path for path in files)
    assert sorted(snapshot.below("")) == sorted(files)
    if files:
        gone = data.draw(st.sampled_from(sorted(files)))
        snapshot.put(gone, "")
        snapshot.put(gone, "")
        assert len(snapshot) == len(files) - 1
        assert snapshot.get(gone) == ""


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 20), st.booleans()), max_size=60)
)
def test_settling_is_a_table_of_due_times(steps: list[tuple[str, int, bool]]) -> None:
    settling, oracle = Settling(), dict[str, int]()
    for path, moment, take in steps:
        if take:
            taken = settling.take_due(moment, 100)
            assert len(taken) == len(set(taken))
            assert set(taken) == {each for each, due in oracle.items() if due <= moment}
            for each in taken:
                del oracle[each]
        else:
            settling.hint(path, moment)
            oracle[path] = moment
        assert len(settling) == len(oracle)
        next_due = settling.next_due()
        assert not oracle or (next_due is not None and next_due <= min(oracle.values()))
