"""Versions, aliases and asynchronous configs through the API."""

from __future__ import annotations

import pytest

from .conftest import Plane, zip_text

VERSIONS, ALIASES = "/services/demo/versions", "/services/demo/aliases"


@pytest.fixture(autouse=True)
async def demo(plane: Plane) -> None:
    await plane.service()
    await plane.function()


async def test_a_publish_without_change_is_refused_and_uses_no_id(plane: Plane) -> None:
    first = await plane.publish("one")
    assert (first.data["versionId"], first.data["description"]) == ("1", "one")

    refused = await plane.publish("two")
    assert (refused.status, refused.code) == (400, "VersionPublishError")
    assert refused.message == (
        "can not publish version for service 'demo', "
        "detail: 'No changes were made since last publish'"
    )

    await plane.call("DELETE", f"{VERSIONS}/1")
    assert (await plane.publish()).data["versionId"] == "2"


async def test_the_lenient_header_answers_the_newest_version(plane: Plane) -> None:
    first = await plane.publish("one")

    again = await plane.call(
        "POST", VERSIONS, {}, headers={"x-fc-ignore-version-publish-error": "true"}
    )

    assert (again.status, again.data) == (200, first.data)


async def test_every_change_of_the_service_or_a_function_counts(plane: Plane) -> None:
    hello = "/services/demo/functions/hello"
    await plane.publish()
    changes = [
        ("PUT", "/services/demo", {"description": "x"}),
        ("PUT", hello, {"description": "x"}),
        ("PUT", hello, {"code": {"zipFile": zip_text({"a": "b"})}}),
        (
            "POST",
            "/services/demo/functions",
            {
                "functionName": "more",
                "runtime": "python3",
                "handler": "a.b",
                "code": {"zipFile": zip_text()},
            },
        ),
        ("DELETE", "/services/demo/functions/more", None),
    ]

    for number, (method, path, content) in enumerate(changes, start=2):
        assert (await plane.call(method, path, content)).status in (200, 204)
        assert (await plane.publish()).data["versionId"] == str(number)


async def test_triggers_and_aliases_do_not_count_as_changes(plane: Plane) -> None:
    await plane.publish()
    await plane.call("POST", ALIASES, {"aliasName": "prod", "versionId": "1"})
    trigger = {
        "triggerName": "t",
        "triggerType": "oss",
        "triggerConfig": {"events": ["oss:ObjectCreated:*"]},
    }
    await plane.call("POST", "/services/demo/functions/hello/triggers", trigger)

    assert (await plane.publish()).code == "VersionPublishError"


async def test_publishing_checks_the_services_etag_and_leaves_it(plane: Plane) -> None:
    etag = (await plane.call("GET", "/services/demo")).headers["ETag"]

    refused = await plane.call("POST", VERSIONS, {}, headers={"If-Match": "other"})
    assert refused.status == 412
    made = await plane.call("POST", VERSIONS, {}, headers={"If-Match": etag})
    assert made.status == 200
    assert (await plane.call("GET", "/services/demo")).headers["ETag"] == etag


async def test_a_version_stays_as_it_was_published(plane: Plane) -> None:
    old = (await plane.call("GET", "/services/demo/functions/hello")).data
    await plane.publish("release one")
    await plane.call("POST", ALIASES, {"aliasName": "prod", "versionId": "1"})
    code = {"zipFile": zip_text({"index.py": "new"})}
    await plane.call("PUT", "/services/demo/functions/hello", {"description": "new", "code": code})
    await plane.call("PUT", "/services/demo", {"description": "new"})

    for qualifier in ("1", "prod"):
        service = await plane.call("GET", f"/services/demo.{qualifier}")
        assert service.data["description"] == "release one"
        assert service.data["serviceName"] == "demo"
        function = await plane.call("GET", f"/services/demo.{qualifier}/functions/hello")
        assert function.data == old
        code_answer = await plane.call("GET", f"/services/demo.{qualifier}/functions/hello/code")
        assert code_answer.data["checksum"] == old["codeChecksum"]
    latest = (await plane.call("GET", "/services/demo/functions/hello")).data
    assert latest["description"] == "new"


async def test_functions_by_alias_and_by_version_are_the_same_answer(plane: Plane) -> None:
    await plane.function("more")
    await plane.publish()
    await plane.call("POST", ALIASES, {"aliasName": "prod", "versionId": "1"})
    await plane.call("DELETE", "/services/demo/functions/more")

    by_alias = await plane.call("GET", "/services/demo.prod/functions", query={"limit": "1"})
    by_version = await plane.call("GET", "/services/demo.1/functions", query={"limit": "1"})
    latest = await plane.call("GET", "/services/demo/functions")

    assert by_alias.raw == by_version.raw
    assert by_version.data["nextToken"] == "more"
    assert [f["functionName"] for f in latest.data["functions"]] == ["hello"]
    gone = await plane.call("GET", "/services/demo/functions/more")
    assert gone.code == "FunctionNotFound"
    assert (await plane.call("GET", "/services/demo.1/functions/more")).status == 200


@pytest.mark.parametrize(
    ("segment", "code", "message"),
    [
        ("demo.9", "VersionNotFound", "version '9' of service 'demo' does not exist"),
        ("demo.prod", "AliasNotFound", "alias 'prod' of service 'demo' does not exist"),
        ("demo.99999999999999999999", "VersionNotFound", "version '99999999999999999999' of"),
        ("nowhere.1", "ServiceNotFound", "service 'nowhere' does not exist"),
    ],
)
async def test_an_unknown_qualifier_is_not_found(
    plane: Plane, segment: str, code: str, message: str
) -> None:
    for path in (f"/services/{segment}", f"/services/{segment}/functions"):
        answer = await plane.call("GET", path)
        assert (answer.status, answer.code) == (404, code)
        assert message in answer.message


async def test_versions_are_listed_by_number_in_both_directions(plane: Plane) -> None:
    empty = await plane.call("GET", VERSIONS)
    assert empty.data == {"versions": [], "direction": "BACKWARD"}
    for number in range(11):
        await plane.call("PUT", "/services/demo", {"description": str(number)})
        await plane.publish()

    async def ids(**query: str) -> tuple[list[str], str | None]:
        answer = await plane.call("GET", VERSIONS, query=query)
        return [v["versionId"] for v in answer.data["versions"]], answer.data.get("nextToken")

    assert await ids(limit="3") == (["11", "10", "9"], "8")
    assert await ids(limit="3", nextToken="8") == (["8", "7", "6"], "5")
    assert await ids(direction="FORWARD", limit="2") == (["1", "2"], "3")
    assert await ids(direction="FORWARD", startKey="10") == (["10", "11"], None)
    assert await ids(startKey="2") == (["2", "1"], None)
    await plane.call("DELETE", f"{VERSIONS}/10")
    assert await ids(startKey="10", limit="1") == (["9"], "8")
    for query in ({"direction": "UP"}, {"startKey": "x"}):
        assert (await plane.call("GET", VERSIONS, query=query)).code == "InvalidArgument"


async def test_a_version_under_an_alias_can_be_deleted_and_the_alias_dangles(plane: Plane) -> None:
    await plane.publish()
    await plane.call("POST", ALIASES, {"aliasName": "prod", "versionId": "1"})

    gone = await plane.call("DELETE", f"{VERSIONS}/1")
    assert (gone.status, gone.raw) == (204, b"")

    assert (await plane.call("GET", f"{ALIASES}/prod")).data["versionId"] == "1"
    assert (await plane.call("GET", "/services/demo.prod")).code == "VersionNotFound"
    assert (await plane.call("DELETE", f"{VERSIONS}/1")).code == "VersionNotFound"
    assert (await plane.call("DELETE", f"{VERSIONS}/LATEST")).code == "InvalidArgument"


async def test_an_alias_may_weigh_its_own_version(plane: Plane) -> None:
    await plane.publish()

    made = await plane.call(
        "POST",
        ALIASES,
        {"aliasName": "prod", "versionId": "1", "additionalVersionWeight": {"1": 0.9}},
    )

    assert made.data["additionalVersionWeight"] == {"1": 0.9}
    assert made.headers["ETag"]
    changed = await plane.call("PUT", f"{ALIASES}/prod", {"additionalVersionWeight": {}})
    assert changed.data["additionalVersionWeight"] == {}


async def test_an_alias_update_keeps_what_it_does_not_name(plane: Plane) -> None:
    await plane.publish()
    made = await plane.call(
        "POST", ALIASES, {"aliasName": "prod", "versionId": "1", "description": "live"}
    )
    assert made.data["additionalVersionWeight"] is None

    kept = await plane.call("PUT", f"{ALIASES}/prod", {"versionId": None})
    assert (kept.data["versionId"], kept.data["description"]) == ("1", "live")
    emptied = await plane.call("PUT", f"{ALIASES}/prod", {"description": ""})
    assert emptied.data["description"] == ""


async def test_aliases_name_only_what_exists(plane: Plane) -> None:
    await plane.publish()
    prod = {"aliasName": "prod", "versionId": "1"}

    wrong = [
        ({**prod, "versionId": "2"}, 404, "VersionNotFound"),
        ({**prod, "additionalVersionWeight": {"2": 0.1}}, 404, "VersionNotFound"),
        ({**prod, "additionalVersionWeight": {"prod": 0.1}}, 404, "VersionNotFound"),
        ({**prod, "aliasName": "LATEST"}, 400, "InvalidArgument"),
    ]
    for content, status, code in wrong:
        answer = await plane.call("POST", ALIASES, content)
        assert (answer.status, answer.code) == (status, code)

    assert (await plane.call("POST", ALIASES, prod)).status == 200
    assert (await plane.call("POST", ALIASES, prod)).code == "AliasAlreadyExists"
    moved = await plane.call("PUT", f"{ALIASES}/prod", {"versionId": "2"})
    assert moved.code == "VersionNotFound"
    assert (await plane.call("DELETE", f"{ALIASES}/prod")).raw == b""
    assert (await plane.call("GET", f"{ALIASES}/prod")).code == "AliasNotFound"


async def test_aliases_are_paged_by_name(plane: Plane) -> None:
    await plane.publish()
    for name in ("c", "a", "b"):
        await plane.call("POST", ALIASES, {"aliasName": name, "versionId": "1"})

    first = await plane.call("GET", ALIASES, query={"limit": "2"})

    assert [a["aliasName"] for a in first.data["aliases"]] == ["a", "b"]
    assert first.data["nextToken"] == "c"


async def test_an_async_config_is_stored_under_its_qualifier(plane: Plane) -> None:
    await plane.publish()
    await plane.call("POST", ALIASES, {"aliasName": "prod", "versionId": "1"})
    path = "/services/demo.prod/functions/hello/async-invoke-config"
    listing = "/services/demo/functions/hello/async-invoke-configs"
    assert (await plane.call("GET", path)).code == "AsyncConfigNotExists"
    assert (await plane.call("GET", listing)).data == {"nextToken": ""}

    target = "acs:fc:cn-local:1:services/demo.prod/functions/absent"
    put = await plane.call(
        "PUT",
        path,
        {
            "DestinationConfig": {"OnSuccess": {"Destination": target}},
            "MaxAsyncEventAgeInSeconds": 100,
        },
    )

    assert put.status == 200
    assert put.data["destinationConfig"] == {"onSuccess": {"destination": target}}
    assert put.data["maxAsyncRetryAttempts"] is None
    assert (put.data["service"], put.data["function"], put.data["qualifier"]) == (
        "demo",
        "hello",
        "prod",
    )
    assert (await plane.call("GET", path)).data == put.data
    latest = await plane.call("PUT", "/services/demo/functions/hello/async-invoke-config", {})
    assert latest.data["qualifier"] == "LATEST"
    paged = await plane.call("GET", listing, query={"limit": "1"})
    assert (len(paged.data["configs"]), paged.data["nextToken"]) == (1, "prod")
    assert (await plane.call("DELETE", path)).status == 204
    assert (await plane.call("DELETE", path)).code == "AsyncConfigNotExists"


async def test_a_second_put_replaces_the_async_config(plane: Plane) -> None:
    path = "/services/demo/functions/hello/async-invoke-config"
    first = await plane.call("PUT", path, {"maxAsyncRetryAttempts": 1})

    second = await plane.call("PUT", path, {"statefulInvocation": True})

    assert second.data["maxAsyncRetryAttempts"] is None
    assert second.data["createdTime"] == first.data["createdTime"]


async def test_an_async_config_needs_its_function(plane: Plane) -> None:
    for segment, function, code in (
        ("nowhere", "hello", "ServiceNotFound"),
        ("demo", "absent", "FunctionNotFound"),
        ("demo.prod", "hello", "AliasNotFound"),
    ):
        path = f"/services/{segment}/functions/{function}/async-invoke-config"
        assert (await plane.call("PUT", path, {})).code == code


async def test_account_settings_and_configs(plane: Plane) -> None:
    assert (await plane.call("GET", "/account-settings")).data == {
        "availableAZs": ["cn-hongkong-c"],
        "defaultRole": "acs:ram::1234567890123456:role/fc-default",
    }
    one = await plane.call("GET", "/accountConfigs", query={"config": "CodeSizeLimit"})
    assert one.data == {"CodeSizeLimit": "104857600"}
    wrong = await plane.call("GET", "/accountConfigs", query={"config": "Wishes"})
    assert wrong.code == "InvalidArgument"
