"""Which version runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_fakes import MemoryMetadata, make_function, metadata_with_function

from eventd.errors import AliasNotFound, FunctionNotFound, ServiceNotFound, VersionNotFound
from eventd.model.resources import Alias
from eventd.router.resolve import Resolver, choose, draw, snapshot


def alias(version: str, weights: dict[str, float] | None) -> Alias:
    return Alias("s", "a", version, "", weights, "e", "c", "m")


def split(main: str, weights: dict[str, float]) -> tuple[MemoryMetadata, Resolver]:
    metadata = metadata_with_function()
    for number in (1, 2, 3, 10):
        metadata.publish(number, make_function(digest=f"d{number}"))
    metadata.set_alias("a", main, weights)
    return metadata, Resolver(metadata.as_store())


@given(
    main=st.sampled_from(["1", "2", "3"]),
    shares=st.dictionaries(st.sampled_from(["1", "2", "3", "10"]), st.floats(0, 0.25), max_size=4),
    u=st.floats(0, 1, exclude_max=True),
)
def test_a_draw_falls_into_the_share_of_its_version(
    main: str, shares: dict[str, float], u: float
) -> None:
    chosen = choose(alias(main, shares), u)

    bound = 0.0
    expected = main
    for version in sorted(shares, key=int):  # the oracle: entries ascending, the rest is main's
        if bound <= u < bound + shares[version]:
            expected = version
            break
        bound += shares[version]
    assert chosen == expected


def test_an_alias_may_name_its_own_version() -> None:
    owner = alias("1", {"1": 0.9})

    assert {choose(owner, u / 100) for u in range(100)} == {"1"}
    assert choose(alias("1", {"1": 1.0}), 0.999) == "1"


def test_the_split_of_20000_calls_fits_the_weights() -> None:
    weights = {"2": 0.2, "3": 0.05}
    _, resolver = split("1", weights)
    counts = {1: 0, 2: 0, 3: 0}

    for number in range(20_000):
        counts[resolver.resolve("s", "a", "f", f"{number:032x}").version] += 1

    expected = {1: 0.75 * 20_000, 2: 0.2 * 20_000, 3: 0.05 * 20_000}
    chi_square = sum((counts[v] - expected[v]) ** 2 / expected[v] for v in expected)
    assert chi_square < 13.8  # 99.9 % of fair splits lie below, with two degrees of freedom


def test_one_key_always_gets_the_same_version() -> None:
    _, resolver = split("1", {"2": 0.5})

    assert len({resolver.resolve("s", "a", "f", "orders-3").version for _ in range(50)}) == 1
    assert draw("orders-3") == draw("orders-3")


def test_a_snapshot_carries_what_the_function_and_its_service_say() -> None:
    made = snapshot(
        {
            "role": "acs:ram::1:role/r",
            "internetAccess": False,
            "logConfig": {"project": "p", "logstore": "l"},
        },
        make_function(cpu=0.5, diskSize=10240),
        "inc",
        4,
    )

    assert (made.runtime, made.handler, made.memory_mb, made.timeout_s) == (
        "python3.11",
        "index.handler",
        256,
        7,
    )
    assert (made.role, made.log_project, made.log_store) == ("acs:ram::1:role/r", "p", "l")
    assert (made.internet_access, made.cpu, made.disk_mb) == (False, 0.5, 10240)
    assert (made.version_name, made.environment) == ("4", {"A": "1"})


def test_changes_take_effect_at_the_next_call() -> None:
    metadata = metadata_with_function()
    resolver = Resolver(metadata.as_store())
    first = resolver.resolve("s", "LATEST", "f")
    assert resolver.resolve("s", "", "f") is not None
    assert resolver.resolve("s", "LATEST", "f") is first

    metadata.set_function(make_function(digest="d1"))
    second = resolver.resolve("s", "LATEST", "f")
    metadata.set_service(role="new")
    third = resolver.resolve("s", "LATEST", "f")

    assert (first.code_digest, second.code_digest) == ("d0", "d1")
    assert third.role == "new"
    assert len({first.key, second.key, third.key}) == 3


def test_a_published_version_never_changes() -> None:
    metadata = metadata_with_function()
    metadata.publish(1, make_function(digest="d1"), role="old")
    resolver = Resolver(metadata.as_store())
    before = resolver.resolve("s", "1", "f")

    metadata.set_function(make_function(digest="d9"))
    metadata.set_service(role="new")

    assert resolver.resolve("s", "1", "f") == before
    assert before.role == "old"


def test_what_does_not_exist_is_named() -> None:
    metadata, resolver = split("1", {"7": 0.5})
    metadata.publish(5)  # has no functions

    with pytest.raises(ServiceNotFound, match="service 'x' does not exist"):
        resolver.resolve("x", "LATEST", "f")
    with pytest.raises(ServiceNotFound):
        resolver.resolve("x", "alias", "f")
    with pytest.raises(FunctionNotFound, match="function 'g' does not exist in service 's'"):
        resolver.resolve("s", "LATEST", "g")
    with pytest.raises(FunctionNotFound):
        resolver.resolve("s", "5", "f")
    for version in ("99", "9" * 40):
        with pytest.raises(VersionNotFound, match=f"version '{version}' of service 's' does not"):
            resolver.resolve("s", version, "f")
    with pytest.raises(AliasNotFound, match="alias 'b' of service 's' does not exist"):
        resolver.resolve("s", "b", "f")
    dangling = {type(_attempt(resolver, n)) for n in range(100)}
    assert dangling == {VersionNotFound, int}  # only the draws that hit the missing version fail


def _attempt(resolver: Resolver, number: int) -> int | VersionNotFound:
    try:
        return resolver.resolve("s", "a", "f", str(number)).version
    except VersionNotFound as error:
        return error


def test_a_retry_keeps_its_version_while_the_alias_names_it() -> None:
    metadata, resolver = split("1", {"2": 0.3})

    assert resolver.resolve_again("s", "a", "f", "key", 2).version == 2
    metadata.set_alias("a", "3", {"2": 0.3})
    assert resolver.resolve_again("s", "a", "f", "key", 2).version == 2
    metadata.set_alias("a", "3")
    assert resolver.resolve_again("s", "a", "f", "key", 2).version == 3
    metadata.set_alias("a", "3", {"2": 0.3})
    metadata.delete_version(2)
    metadata.set_alias("a", "3")
    assert resolver.resolve_again("s", "a", "f", "key", 2).version == 3
    assert resolver.resolve_again("s", "LATEST", "f", "key", 0).version == 0
    assert resolver.resolve_again("s", "1", "f", "key", 1).version == 1


def test_a_service_that_is_created_again_is_another_one() -> None:
    metadata = metadata_with_function()
    resolver = Resolver(metadata.as_store())
    first = resolver.resolve("s", "LATEST", "f")

    metadata.set_service(incarnation="second")

    assert resolver.resolve("s", "LATEST", "f").incarnation == "second"
    assert first.incarnation == "inc"


def test_a_closed_resolver_no_longer_listens() -> None:
    metadata = metadata_with_function()
    resolver = Resolver(metadata.as_store())

    resolver.close()

    assert metadata.listeners == []
