"""Resources on a real file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from store_support import Opener

from eventd.model.resources import (
    Alias,
    AsyncConfig,
    Function,
    Service,
    TriggerRecord,
    Version,
)
from eventd.store.interface import Change, StaleWrite
from eventd.store.opened import Store

TIMES = {"created_time": "2026-01-01T00:00:00Z", "last_modified_time": "2026-01-01T00:00:00Z"}


def service(name: str = "shop", etag: str = "1", **given: Any) -> Service:
    fields = {"service_id": "id", "incarnation": "one", "config": {"role": "", "n": None}, **given}
    return Service(name=name, etag=etag, **TIMES, **fields)


def function(name: str = "orders", etag: str = "1", of: str = "shop") -> Function:
    return Function(
        service=of,
        name=name,
        function_id="id",
        etag=etag,
        config={"memorySize": 128, "environmentVariables": {"k": "ü"}},
        code_digest=f"digest-{name}",
        code_checksum="1",
        code_size=3,
        **TIMES,
    )


def trigger(name: str = "timer", of: str = "orders") -> TriggerRecord:
    return TriggerRecord(
        service="shop",
        function=of,
        name=name,
        trigger_id="tid",
        type="timer",
        source_arn=None,
        invocation_role=None,
        qualifier=None,
        description="",
        config={"cronExpression": "@every 1m"},
        etag="1",
        **TIMES,
    )


def alias(name: str = "prod") -> Alias:
    return Alias(
        service="shop",
        name=name,
        version_id="1",
        description="",
        additional_version_weight={"2": 0.1},
        etag="1",
        **TIMES,
    )


def config(qualifier: str = "LATEST") -> AsyncConfig:
    return AsyncConfig("shop", "orders", qualifier, {"maxAsyncRetryAttempts": 1}, **TIMES)


def version(**functions: Function) -> Version:
    return Version(
        service="shop",
        version_id=0,
        description="",
        service_config={},
        functions=functions,
        content_hash="h",
        **TIMES,
    )


async def fill(store: Store) -> None:
    metadata = store.metadata
    await metadata.save_service(service(), expect=None)
    await metadata.save_function(function(), expect=None)
    await metadata.save_trigger(trigger(), expect=None)
    await metadata.publish_version(version(orders=function()), expect="1")
    await metadata.save_alias(alias(), expect=None)
    await metadata.save_async_config(config())


async def test_everything_comes_back_equal_after_a_restart(opener: Opener) -> None:
    async with opener() as store:
        await fill(store)
    async with opener() as store:
        metadata = store.metadata
        assert metadata.service("shop") == replace(service(), last_version=1)
        assert metadata.function("shop", "orders") == function()
        assert metadata.trigger("shop", "orders", "timer") == trigger()
        published = replace(version(orders=function()), version_id=1)
        assert metadata.version("shop", 1) == published
        assert metadata.alias("shop", "prod") == alias()
        assert metadata.async_config("shop", "orders", "LATEST") == config()


async def test_listings_are_in_byte_order_and_versions_by_number(opener: Opener) -> None:
    async with opener() as store:
        metadata = store.metadata
        for name in ("b", "B", "a-1", "a_1", "a"):
            await metadata.save_service(service(name), expect=None)
        assert [one.name for one in metadata.services()] == ["B", "a", "a-1", "a_1", "b"]
        await metadata.save_service(service(), expect=None)
        for _ in range(11):
            await metadata.publish_version(version(), expect="1")
        assert [one.version_id for one in metadata.versions("shop")] == list(range(1, 12))


async def test_a_save_needs_the_etag_it_read(opener: Opener) -> None:
    async with opener() as store:
        metadata = store.metadata
        await metadata.save_service(service(), expect=None)
        for expect in (None, "other"):
            with pytest.raises(StaleWrite):
                await metadata.save_service(service(etag="2"), expect=expect)
        await metadata.save_service(service(etag="2"), expect="1")
        with pytest.raises(StaleWrite):
            await metadata.delete_service("shop", expect="1")
        assert metadata.service("shop") == service(etag="2")


async def test_of_two_writers_at_once_one_wins(opener: Opener) -> None:
    async with opener() as store:
        await store.metadata.save_service(service(), expect=None)
        ended = await asyncio.gather(
            *(store.metadata.save_service(service(etag=f"n{n}"), expect="1") for n in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, StaleWrite) for one in ended) == 7
        kept = store.metadata.service("shop")
        assert kept is not None
        assert ended[int(kept.etag[1:])] is None


async def test_version_ids_only_rise_until_the_service_is_made_anew(opener: Opener) -> None:
    async with opener() as store:
        metadata = store.metadata
        await metadata.save_service(service(), expect=None)
        assert (await metadata.publish_version(version(), expect="1")).version_id == 1
        assert (await metadata.publish_version(version(), expect="1")).version_id == 2
        await metadata.delete_version("shop", 2)
        # written by somebody who read the service before it was published
        await metadata.save_service(service(etag="2", last_version=0), expect="1")
        assert (await metadata.publish_version(version(), expect="2")).version_id == 3
        with pytest.raises(StaleWrite):
            await metadata.publish_version(version(), expect="1")
        await metadata.delete_service("shop", expect="2")
        assert list(metadata.versions("shop")) == []
        await metadata.save_service(service(incarnation="two"), expect=None)
        assert (await metadata.publish_version(version(), expect="1")).version_id == 1


async def test_no_orphans_stay_behind_a_service(opener: Opener) -> None:
    async with opener() as store:
        await fill(store)
        await store.metadata.delete_service("shop", expect="1")
        for again in range(2):
            metadata = store.metadata
            assert list(metadata.triggers()) == []
            assert list(metadata.functions("shop")) == []
            assert list(metadata.versions("shop")) == []
            assert list(metadata.aliases("shop")) == []
            assert list(metadata.async_configs("shop", "orders")) == []
            assert metadata.code_digests() == set()
            if not again:
                await metadata.load()  # the file says the same


async def test_nothing_is_saved_below_what_is_gone(opener: Opener) -> None:
    async with opener() as store:
        metadata = store.metadata
        for save in (
            metadata.save_function(function(), expect=None),
            metadata.save_trigger(trigger(), expect=None),
            metadata.save_alias(alias(), expect=None),
            metadata.save_async_config(config()),
            metadata.publish_version(version(), expect="1"),
        ):
            with pytest.raises(StaleWrite):
                await save
        assert (
            await store.metadata._writer.call(lambda c: c.execute("SELECT 1 FROM resource").get)
            is None
        )


async def test_a_deleted_function_takes_its_triggers_but_not_a_versions_settings(
    opener: Opener,
) -> None:
    async with opener() as store:
        await fill(store)
        metadata = store.metadata
        await metadata.save_async_config(config("prod"))
        await metadata.delete_function("shop", "orders", expect="1")
        assert list(metadata.triggers("shop")) == []
        assert metadata.async_config("shop", "orders", "LATEST") is None
        assert metadata.async_config("shop", "orders", "prod") == config("prod")
        assert metadata.code_digests() == {"digest-orders"}  # of the version


async def test_listeners_hear_changes_in_commit_order(opener: Opener) -> None:
    heard: list[Change] = []
    async with opener() as store:
        undo = store.metadata.subscribe(heard.append)
        await asyncio.gather(
            store.metadata.save_service(service(), expect=None),
            store.metadata.save_function(function(), expect=None),
            store.metadata.save_trigger(trigger(), expect=None),
        )
        await store.metadata.delete_function("shop", "orders", expect="1")
        undo()
        await store.metadata.delete_service("shop", expect="1")
    assert heard == [
        Change("service", "shop", "shop"),
        Change("function", "shop", "orders", function="orders"),
        Change("trigger", "shop", "timer", function="orders"),
        Change("trigger", "shop", "timer", function="orders", deleted=True),
        Change("function", "shop", "orders", function="orders", deleted=True),
    ]


async def test_triggers_are_listed_by_owner(opener: Opener) -> None:
    async with opener() as store:
        metadata = store.metadata
        await metadata.save_service(service(), expect=None)
        for name in ("orders", "bills"):
            await metadata.save_function(function(name), expect=None)
            await metadata.save_trigger(trigger("t", of=name), expect=None)
        assert [one.function for one in metadata.triggers()] == ["bills", "orders"]
        assert [one.function for one in metadata.triggers("shop", "orders")] == ["orders"]
        assert list(metadata.triggers("none")) == []
