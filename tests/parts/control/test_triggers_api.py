"""Triggers through the API: the same for every type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from .conftest import Plane

TRIGGERS = "/services/demo/functions/hello/triggers"
BUCKET = "acs:oss:cn-local:1234567890123456:pictures"


def oss(name: str = "t", prefix: str = "in/", **changes: Any) -> dict[str, Any]:
    return {
        "triggerName": name,
        "triggerType": "oss",
        "sourceArn": BUCKET,
        "invocationRole": "acs:ram::1:role/r",
        "triggerConfig": {
            "events": ["oss:ObjectCreated:*"],
            "filter": {"key": {"prefix": prefix, "suffix": ".jpg"}},
        },
        **changes,
    }


@pytest.fixture(autouse=True)
async def demo(plane: Plane) -> None:
    await plane.service()
    await plane.function()


async def test_a_config_is_echoed_key_for_key(plane: Plane) -> None:
    made = await plane.call("POST", TRIGGERS, oss(description="thumbs", qualifier=None))

    assert made.status == 200
    assert made.data["triggerConfig"] == oss()["triggerConfig"]
    assert made.data["sourceArn"] == BUCKET
    assert made.data["invocationRole"] == "acs:ram::1:role/r"
    assert (made.data["description"], made.data["qualifier"]) == ("thumbs", None)
    got = await plane.call("GET", f"{TRIGGERS}/t")
    assert (got.data, got.headers["ETag"]) == (made.data, made.headers["ETag"])


async def test_a_type_without_a_source_arn_answers_null(plane: Plane) -> None:
    config = {"authType": "anonymous", "methods": ["PUT", "GET"]}
    content = {
        "triggerName": "h",
        "triggerType": "http",
        "sourceArn": "dummy_arn",
        "invocationRole": "",
        "qualifier": None,
        "triggerConfig": config,
    }

    made = await plane.call("POST", TRIGGERS, content)

    assert made.data["sourceArn"] is None
    assert made.data["invocationRole"] == ""
    assert made.data["triggerConfig"] == config


async def test_an_update_merges_top_level_keys_only(plane: Plane) -> None:
    content = {
        "triggerName": "l",
        "triggerType": "log",
        "triggerConfig": {
            "sourceConfig": {"logstore": "s"},
            "jobConfig": {"maxRetryTime": 10, "triggerInterval": 60},
            "functionParameter": {},
            "enable": False,
        },
    }
    made = await plane.call("POST", TRIGGERS, content)

    changed = await plane.call(
        "PUT",
        f"{TRIGGERS}/l",
        {
            "triggerConfig": {"jobConfig": {"maxRetryTime": 0}, "enable": None},
            "triggerType": "http",
            "triggerName": "other",
        },
    )

    assert changed.data["triggerConfig"] == {
        **made.data["triggerConfig"],
        "jobConfig": {"maxRetryTime": 0},
    }
    assert (changed.data["triggerType"], changed.data["triggerName"]) == ("log", "l")
    only_role = await plane.call("PUT", f"{TRIGGERS}/l", {"invocationRole": "new"})
    assert only_role.data["triggerConfig"] == changed.data["triggerConfig"]
    assert only_role.data["invocationRole"] == "new"


async def test_keys_of_a_config_are_read_in_any_case_but_echoed_as_sent(plane: Plane) -> None:
    await plane.call("POST", TRIGGERS, oss())
    config = {
        "Events": ["oss:ObjectCreated:*"],
        "filter": {"Key": {"Prefix": "in/", "Suffix": ".jpg"}},
    }

    same = await plane.call("POST", TRIGGERS, oss("same", triggerConfig=config))
    other = await plane.call(
        "POST", TRIGGERS, oss("other", triggerConfig=config, sourceArn="acs:oss:cn-local:1:x")
    )

    assert (same.status, same.code) == (409, "EventBridgeTriggerConflict")
    assert same.message == "trigger 'same' is refused: it overlaps with trigger 't'"
    assert other.data["triggerConfig"] == config


async def test_a_conflict_is_found_in_another_service_and_on_update(plane: Plane) -> None:
    await plane.service("second")
    await plane.function("there", service="second")
    await plane.call("POST", "/services/second/functions/there/triggers", oss())
    made = await plane.call("POST", TRIGGERS, oss("mine", prefix="out/"))

    refused = await plane.call(
        "PUT", f"{TRIGGERS}/mine", {"triggerConfig": {"filter": oss()["triggerConfig"]["filter"]}}
    )

    assert refused.status == 409
    assert (await plane.call("GET", f"{TRIGGERS}/mine")).data == made.data
    same = await plane.call("PUT", f"{TRIGGERS}/mine", {"description": "not against itself"})
    assert same.status == 200


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"triggerType": "mqtt"},
            (
                "TriggerType is set to an invalid value "
                "(allowed: http | log | native | oss, actual: 'mqtt')"
            ),
        ),
        ({"triggerType": None}, "TriggerType is required but not provided"),
        ({"triggerConfig": None}, "TriggerConfig is required but not provided"),
        ({"triggerConfig": "{}"}, "TriggerConfig is set to an invalid value (allowed: object"),
        ({"triggerConfig": {}}, "TriggerConfig.events is required but not provided"),
        (
            {"triggerConfig": {"events": ["e"], "filter": {"key": {"prefix": 1}}}},
            "TriggerConfig.filter.key.prefix is set to an invalid value (allowed: string",
        ),
        (
            {"triggerType": "native", "triggerConfig": {"topic": "t", "topik": "u"}},
            "TriggerConfig.topik is not a known field",
        ),
        ({"triggerName": "a b"}, "TriggerName doesn't match expected format"),
        ({"qualifier": True}, "Qualifier is set to an invalid value (allowed: string"),
    ],
)
async def test_a_bad_trigger_is_refused_with_its_field(
    plane: Plane, changes: dict[str, Any], text: str
) -> None:
    refused = await plane.call("POST", TRIGGERS, {**oss(), **changes})

    assert (refused.status, refused.code) == (400, "InvalidArgument")
    assert text in refused.message
    assert list(plane.metadata.triggers()) == []


async def test_the_qualifier_must_exist_and_hold_the_function(plane: Plane) -> None:
    await plane.publish()
    await plane.function("later")
    later = "/services/demo/functions/later/triggers"

    for path, qualifier, code in (
        (TRIGGERS, "9", "VersionNotFound"),
        (TRIGGERS, "prod", "AliasNotFound"),
        (later, "1", "FunctionNotFound"),
    ):
        refused = await plane.call("POST", path, oss(qualifier=qualifier))
        assert (refused.status, refused.code) == (404, code)

    made = await plane.call("POST", TRIGGERS, oss(qualifier=1))
    assert made.data["qualifier"] == "1"
    await plane.call("POST", "/services/demo/aliases", {"aliasName": "prod", "versionId": "1"})
    moved = await plane.call("PUT", f"{TRIGGERS}/t", {"qualifier": "prod"})
    assert moved.data["qualifier"] == "prod"


async def test_a_missing_parent_or_trigger_is_not_found(plane: Plane) -> None:
    for path, code in (
        ("/services/nowhere/functions/hello/triggers", "ServiceNotFound"),
        ("/services/demo/functions/absent/triggers", "FunctionNotFound"),
    ):
        assert (await plane.call("POST", path, oss())).code == code
        assert (await plane.call("GET", path)).code == code
    for method in ("GET", "PUT", "DELETE"):
        missing = await plane.call(method, f"{TRIGGERS}/absent", {} if method == "PUT" else None)
        assert (missing.status, missing.code) == (404, "TriggerNotFound")


async def test_a_trigger_exists_once(plane: Plane) -> None:
    await plane.call("POST", TRIGGERS, oss())

    again = await plane.call("POST", TRIGGERS, oss(prefix="other/"))

    assert (again.status, again.code) == (409, "TriggerAlreadyExists")


async def test_five_triggers_by_two_take_three_calls(plane: Plane) -> None:
    for number in range(5):
        await plane.call("POST", TRIGGERS, oss(f"t{number}", prefix=str(number)))

    calls, token = 0, ""
    while calls == 0 or token:
        answer = await plane.call("GET", TRIGGERS, query={"limit": "2", "nextToken": token})
        token, calls = answer.data.get("nextToken", ""), calls + 1

    assert calls == 3


async def test_deleting_checks_the_etag(plane: Plane) -> None:
    made = await plane.call("POST", TRIGGERS, oss())

    refused = await plane.call("DELETE", f"{TRIGGERS}/t", headers={"If-Match": "other"})
    assert refused.status == 412
    gone = await plane.call("DELETE", f"{TRIGGERS}/t", headers={"If-Match": made.headers["ETag"]})
    assert (gone.status, gone.raw) == (204, b"")


async def test_a_trigger_whose_adapter_is_gone_can_be_read_and_deleted(plane: Plane) -> None:
    await plane.call("POST", TRIGGERS, oss())
    types = {n: t for n, t in plane.state.trigger_types.items() if n != "oss"}
    plane.state.trigger_types = types

    got = await plane.call("GET", f"{TRIGGERS}/t")
    assert got.data["triggerConfig"] == oss()["triggerConfig"]
    assert (await plane.call("PUT", f"{TRIGGERS}/t", {})).code == "InvalidArgument"
    assert (await plane.call("DELETE", f"{TRIGGERS}/t")).status == 204


async def test_a_stored_config_that_is_not_valid_any_more_blocks_nobody(plane: Plane) -> None:
    await plane.call("POST", TRIGGERS, oss("old"))
    rows = plane.metadata.rows["trigger"]
    key = ("demo", "hello", "old")
    rows[key] = replace(rows[key], config={})

    assert (await plane.call("POST", TRIGGERS, oss("new"))).status == 200


async def test_a_function_holds_only_so_many_triggers(plane: Plane) -> None:
    plane.state.limits = type(plane.state.limits)(triggers=1)
    await plane.call("POST", TRIGGERS, oss("one", prefix="1"))

    refused = await plane.call("POST", TRIGGERS, oss("two", prefix="2"))

    assert (refused.status, refused.code) == (400, "LimitExceededError")
