"""Versions and aliases through the official SDK: snapshots, rules of publishing, weights."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

from sdk_client import RUNTIME, client, package, pages, refused
from system_node import Node, NodeFactory

COUNTING = (
    "count = 0\n"
    "def handler(event, context):\n"
    "    global count\n"
    "    count += 1\n"
    "    return '{} {}'.format({answer!r}, count)\n"
)


def answering(answer: str) -> str:
    return COUNTING.replace("{answer!r}", repr(answer))


async def test_publishing_numbers_refuses_and_lists(node: NodeFactory) -> None:
    def story(sdk: Any) -> None:
        made = sdk.create_service("s")
        assert sdk.list_versions("s").data["versions"] == []
        stale = {"if-match": "not its etag"}
        refused(412, "PreconditionFailed", sdk.publish_version, "s", headers=stale)
        first = sdk.publish_version("s", "first", headers={"if-match": made.headers["etag"]}).data
        assert (first["versionId"], first["description"]) == ("1", "first")
        assert {"createdTime", "lastModifiedTime"} <= set(first)
        error = refused(400, "VersionPublishError", sdk.publish_version, "s", "again")
        assert "No changes were made since last publish" in error.message

        sdk.delete_version("s", "1")
        refused(404, "VersionNotFound", sdk.delete_version, "s", "1")
        # Nothing changed, but there is no version left to compare with.
        assert sdk.publish_version("s").data["versionId"] == "2"
        for number in range(3, 8):
            sdk.update_service("s", description=str(number))
            assert sdk.publish_version("s").data["versionId"] == str(number)

        newest_first = pages(sdk.list_versions, "versions", "s", limit=2)
        assert [[one["versionId"] for one in page] for page in newest_first] == [
            ["7", "6"], ["5", "4"], ["3", "2"],
        ]  # fmt: skip
        forward = sdk.list_versions("s", direction="FORWARD").data["versions"]
        assert [one["versionId"] for one in forward] == ["2", "3", "4", "5", "6", "7"]
        refused(409, "ServiceNotEmpty", sdk.delete_service, "s")
        refused(404, "ServiceNotFound", sdk.publish_version, "nowhere")

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_a_version_keeps_code_configuration_and_functions(
    node: NodeFactory, tmp_path: Path
) -> None:
    def story(sdk: Any) -> None:
        one = package(tmp_path, "one", index=answering("one"))
        two = package(tmp_path, "two", index=answering("two"))
        sdk.create_service("s", description="of the service")
        made = sdk.create_function(
            "s", "f", RUNTIME, "index.handler", codeDir=one, description="d1"
        ).data
        sdk.publish_version("s", "of version 1")
        sdk.create_alias("s", "prod", "1")
        sdk.update_function("s", "f", codeDir=two, description="d2")
        sdk.create_function("s", "g", RUNTIME, "index.handler", codeDir=two)
        sdk.publish_version("s", "of version 2")

        for qualifier in ("1", "prod"):
            service = sdk.get_service("s", qualifier=qualifier).data
            assert (service["serviceName"], service["description"]) == ("s", "of version 1")
            function = sdk.get_function("s", "f", qualifier=qualifier).data
            assert function["description"] == "d1"
            code = sdk.get_function_code("s", "f", qualifier=qualifier).data
            assert code["checksum"] == function["codeChecksum"] == made["codeChecksum"]
            assert code["url"]
            refused(404, "FunctionNotFound", sdk.get_function, "s", "g", qualifier=qualifier)
            refused(404, "FunctionNotFound", sdk.invoke_function, "s", "g", qualifier=qualifier)
            called = sdk.invoke_function("s", "f", qualifier=qualifier)
            assert called.data.startswith(b"one")
            assert called.headers["x-fc-invocation-service-version"] == "1"
        by_alias = sdk.list_functions("s", qualifier="prod").data
        assert by_alias == sdk.list_functions("s", qualifier="1").data
        assert [found["functionName"] for found in by_alias["functions"]] == ["f"]
        assert sdk.invoke_function("s", "f").data == b"two 1"

        # What is deleted from the working copy stays in the versions.
        for name in ("f", "g"):
            sdk.delete_function("s", name)
        assert sdk.invoke_function("s", "g", qualifier="2").data == b"two 1"
        refused(404, "VersionNotFound", sdk.invoke_function, "s", "f", qualifier="9")
        refused(404, "AliasNotFound", sdk.invoke_function, "s", "f", qualifier="canary")
        for version in ("1", "2"):
            sdk.delete_version("s", version)
        refused(404, "VersionNotFound", sdk.invoke_function, "s", "f", qualifier="prod")
        sdk.delete_alias("s", "prod")
        sdk.delete_service("s")

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_aliases_split_move_and_page(node: NodeFactory, tmp_path: Path) -> None:
    def story(sdk: Any) -> Counter[bytes]:
        sdk.create_service("s")
        for answer in ("one", "two"):
            code = package(tmp_path, answer, index=f"def handler(e, c):\n    return '{answer}'\n")
            if answer == "one":
                sdk.create_function("s", "f", RUNTIME, "index.handler", codeDir=code)
            else:
                sdk.update_function("s", "f", codeDir=code)
            sdk.publish_version("s")
        weight = {"1": 0.9}
        made = sdk.create_alias("s", "prod", "1", description="d", additionalVersionWeight=weight)
        assert made.headers["etag"]
        assert made.data["additionalVersionWeight"] == weight
        assert (made.data["versionId"], made.data["description"]) == ("1", "d")
        refused(409, "AliasAlreadyExists", sdk.create_alias, "s", "prod", "1")
        refused(404, "VersionNotFound", sdk.create_alias, "s", "canary", "3")

        tag = {"if-match": made.headers["etag"]}
        moved = sdk.update_alias(
            "s", "prod", "1", additionalVersionWeight={"2": 0.5}, headers=tag
        ).data
        assert (moved["additionalVersionWeight"], moved["description"]) == ({"2": 0.5}, "d")
        refused(412, "PreconditionFailed", sdk.update_alias, "s", "prod", "2", headers=tag)
        split = Counter(sdk.invoke_function("s", "f", qualifier="prod").data for _ in range(60))
        assert (
            sdk.get_service("s", qualifier="prod").data == sdk.get_service("s", qualifier="1").data
        )
        sdk.update_alias("s", "prod", "2", additionalVersionWeight={"2": 1.0})
        assert {sdk.invoke_function("s", "f", qualifier="prod").data for _ in range(10)} == {b"two"}

        for number in range(5):
            sdk.create_alias("s", f"x{number}", "1")
        listed = pages(sdk.list_aliases, "aliases", "s", limit=2)
        assert [len(page) for page in listed] == [2, 2, 2]
        named = sdk.list_aliases("s", prefix="x", startKey="x3").data["aliases"]
        assert [one["aliasName"] for one in named] == ["x3", "x4"]
        refused(412, "PreconditionFailed", sdk.delete_alias, "s", "prod", headers=tag)
        sdk.delete_alias("s", "prod")
        refused(404, "AliasNotFound", sdk.get_alias, "s", "prod")
        refused(404, "AliasNotFound", sdk.delete_alias, "s", "prod")
        return split

    async with node() as one:
        split = await asyncio.to_thread(story, client(one))

    assert set(split) == {b"one", b"two"}
    assert min(split.values()) >= 10  # 60 throws of a fair coin: below 10 once in ten million


async def test_publishing_stores_references_not_code(node: NodeFactory, tmp_path: Path) -> None:
    def story(sdk: Any, one: Node) -> None:
        folder = package(tmp_path, "big", index=answering("big"))
        Path(folder, "ballast.bin").write_bytes(os.urandom(4 << 20))
        sdk.create_service("s")
        size = sdk.create_function("s", "f", RUNTIME, "index.handler", codeDir=folder).data[
            "codeSize"
        ]
        assert size > 4 << 20
        assert sdk.invoke_function("s", "f").data == b"big 1"
        files, before = _usage(one.data / "blobs")
        whole = _usage(one.data)[1]
        for number in range(30):
            sdk.update_service("s", description=str(number))
            version = sdk.publish_version("s").data["versionId"]
        assert sdk.invoke_function("s", "f", qualifier=version).data == b"big 1"
        assert _usage(one.data / "blobs") == (files, before)
        assert _usage(one.data)[1] - whole < size  # rows and logs for 30 versions

    async with node() as one:
        await asyncio.to_thread(story, client(one), one)


def _usage(root: Path) -> tuple[int, int]:
    """Files and bytes below ``root``."""
    sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


async def test_a_service_made_again_starts_at_version_1_in_a_new_incarnation(
    node: NodeFactory, tmp_path: Path
) -> None:
    """The same name, function, code and version id: still not the same thing."""

    def story(sdk: Any) -> None:
        code = package(tmp_path, "code", index=answering("x"))
        lives = []
        for _ in range(2):
            service = sdk.create_service("s").data["serviceId"]
            sdk.create_function("s", "f", RUNTIME, "index.handler", codeDir=code)
            assert sdk.publish_version("s").data["versionId"] == "1"
            first = sdk.invoke_function("s", "f", qualifier="1")
            assert first.data == b"x 1"  # no instance of the life before serves it
            assert sdk.invoke_function("s", "f", qualifier="1").data == b"x 2"
            lives.append((service, first.headers["x-fc-instance-id"]))
            sdk.delete_function("s", "f")
            sdk.delete_version("s", "1")
            sdk.delete_service("s")
        assert len({service for service, _ in lives}) == 2
        assert len({instance for _, instance in lives}) == 2

    async with node() as one:
        await asyncio.to_thread(story, client(one))
