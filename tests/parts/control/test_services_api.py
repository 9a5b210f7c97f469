"""Services through the API."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from .conftest import Plane


async def test_a_created_service_reads_back_with_its_defaults(plane: Plane) -> None:
    made = await plane.call("POST", "/services", {"serviceName": "demo", "description": "测试"})

    assert made.status == 200
    assert len(made.headers["ETag"]) == 32
    assert made.data["description"] == "测试"
    assert (made.data["role"], made.data["internetAccess"]) == ("", True)
    assert made.data["createdTime"] == made.data["lastModifiedTime"]
    assert made.data["createdTime"].endswith("Z")
    for path in ("/services/demo", "/services/demo.LATEST"):
        got = await plane.call("GET", path)
        assert (got.data, got.headers["ETag"]) == (made.data, made.headers["ETag"])


async def test_an_update_keeps_what_it_does_not_name(plane: Plane) -> None:
    made = await plane.service(description="first", role="acs:ram::1:role/r")

    changed = await plane.call("PUT", "/services/demo", {"internetAccess": False})

    assert changed.headers["ETag"] != made.headers["ETag"]
    assert changed.data["description"] == "first"
    assert changed.data["internetAccess"] is False
    assert changed.data["serviceId"] == made.data["serviceId"]
    emptied = await plane.call("PUT", "/services/demo", {"description": "", "tracingConfig": {}})
    assert emptied.data["description"] == ""
    assert emptied.data["tracingConfig"] == {"type": None, "params": None}


async def test_a_service_exists_once(plane: Plane) -> None:
    await plane.service()

    again = await plane.call("POST", "/services", {"serviceName": "demo"})

    assert (again.status, again.code) == (409, "ServiceAlreadyExists")
    assert again.message == "service 'demo' already exists"


async def test_a_wrong_if_match_changes_nothing(plane: Plane) -> None:
    made = await plane.service(description="kept")

    for method, content in (("PUT", {"description": "lost"}), ("DELETE", None)):
        refused = await plane.call(
            method, "/services/demo", content, headers={"If-Match": "invalid etag"}
        )
        assert (refused.status, refused.code) == (412, "PreconditionFailed")
        assert refused.message == "the resource being modified has been changed"

    assert (await plane.call("GET", "/services/demo")).data == made.data


async def test_if_match_may_be_quoted_or_a_star(plane: Plane) -> None:
    etag = (await plane.service()).headers["ETag"]

    for given in ('"{}"', '"other", "{}"', "*"):
        headers = {"If-Match": given.format(etag)}
        done = await plane.call("PUT", "/services/demo", {}, headers=headers)
        assert done.status == 200
        etag = done.headers["ETag"]


async def test_a_right_if_match_deletes(plane: Plane) -> None:
    made = await plane.service()

    gone = await plane.call("DELETE", "/services/demo", headers={"If-Match": made.headers["ETag"]})

    assert (gone.status, gone.raw) == (204, b"")
    again = await plane.call("DELETE", "/services/demo")
    assert (again.status, again.code) == (404, "ServiceNotFound")
    assert again.message == "service 'demo' does not exist"


async def test_a_service_in_use_cannot_be_deleted(plane: Plane) -> None:
    await plane.service()
    await plane.function()
    assert (await plane.call("DELETE", "/services/demo")).code == "ServiceNotEmpty"

    assert (await plane.publish()).status == 200
    await plane.call("DELETE", "/services/demo/functions/hello")
    assert (await plane.call("DELETE", "/services/demo")).code == "ServiceNotEmpty"

    await plane.call("POST", "/services/demo/aliases", {"aliasName": "prod", "versionId": "1"})
    await plane.call("DELETE", "/services/demo/versions/1")
    assert (await plane.call("DELETE", "/services/demo")).status == 409
    await plane.call("DELETE", "/services/demo/aliases/prod")
    assert (await plane.call("DELETE", "/services/demo")).status == 204


async def test_listing_pages_in_byte_order_without_a_last_token(plane: Plane) -> None:
    for name in ("b", "a", "B", "_x"):
        await plane.service(name)

    first = await plane.call("GET", "/services", query={"limit": "3"})
    second = await plane.call("GET", "/services", query={"nextToken": first.data["nextToken"]})

    assert [s["serviceName"] for s in first.data["services"]] == ["B", "_x", "a"]
    assert [s["serviceName"] for s in second.data["services"]] == ["b"]
    assert "nextToken" not in second.data


async def test_a_tag_that_nobody_has_finds_nothing(plane: Plane) -> None:
    await plane.service()

    assert (await plane.call("GET", "/services", query={"tag_k": ""})).data == {"services": []}


async def test_a_limit_of_zero_is_refused(plane: Plane) -> None:
    refused = await plane.call("GET", "/services", query={"limit": "0"})

    assert (refused.status, refused.code) == (400, "InvalidArgument")


def rival(plane: Plane, times: int) -> None:
    """Another writer changes the service's role just before each of the next ``times`` writes."""
    rows = plane.metadata.rows["service"]
    turns = iter(range(times))

    def write(kind: str) -> None:
        turn = next(turns, None)
        if turn is not None:
            service = rows["demo",]
            config = {**service.config, "role": f"acs:ram::1:role/{turn}"}
            rows["demo",] = replace(service, etag=f"rival-{turn}", config=config)

    plane.metadata.before_save = write


async def test_a_slower_writer_tries_again_and_merges(plane: Plane) -> None:
    await plane.service(description="one")
    rival(plane, times=2)

    changed = await plane.call("PUT", "/services/demo", {"description": "two"})

    assert changed.status == 200
    assert (changed.data["description"], changed.data["role"]) == ("two", "acs:ram::1:role/1")


async def test_a_slower_writer_with_if_match_loses(plane: Plane) -> None:
    made = await plane.service()
    rival(plane, times=1)

    changed = await plane.call(
        "PUT", "/services/demo", {"description": "x"}, headers={"If-Match": made.headers["ETag"]}
    )

    assert (changed.status, changed.code) == (412, "PreconditionFailed")


async def test_a_writer_that_is_always_too_slow_hears_so(plane: Plane) -> None:
    await plane.service()
    rival(plane, times=100)

    changed = await plane.call("PUT", "/services/demo", {"description": "x"})

    assert (changed.status, changed.code) == (409, "ConcurrentUpdateError")


async def test_twenty_creations_at_once_make_one_service(plane: Plane) -> None:
    answers = await asyncio.gather(
        *(plane.call("POST", "/services", {"serviceName": "demo"}) for _ in range(20))
    )

    assert sorted(answer.status for answer in answers) == [200] + [409] * 19


async def test_a_deletion_and_a_creation_inside_do_not_cross(plane: Plane) -> None:
    for _ in range(10):
        await plane.service()
        made, gone = await asyncio.gather(
            plane.call("POST", "/services/demo/versions", {}),
            plane.call("DELETE", "/services/demo"),
        )
        assert {made.status, gone.status} in ({200, 409}, {404, 204})
        if gone.status == 409:
            await plane.call("DELETE", "/services/demo/versions/1")
            assert (await plane.call("DELETE", "/services/demo")).status == 204
