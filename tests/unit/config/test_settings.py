"""Settings from environment and flags; the table itself."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.config import ConfigError, Setting, Settings, is_loopback, listen_address, table
from eventd.settings import load

ROWS = {row.key: row for row in table()}
FREE = sorted(
    key
    for key, row in ROWS.items()
    if row.type in (int, float, bool) or row.choices or key == "server.region"
)
"""Keys whose value does not depend on another's."""


def good_values(row: Setting) -> st.SearchStrategy[object]:
    if row.choices:
        return st.sampled_from(row.choices)
    if row.type is bool:
        return st.booleans()
    high = min(row.at_most, 1e6)
    if row.type is int:
        return st.integers(int(row.at_least), int(high))
    if row.type is float:
        return st.floats(row.at_least, high, allow_nan=False)
    return st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1)


def value_of(settings: Settings, row: Setting) -> object:
    return getattr(getattr(settings, row.group), row.name)


def test_without_anything_every_setting_has_its_default() -> None:
    settings = load(environ={})

    assert dataclasses.replace(settings.server, data=Settings().server.data) == Settings().server
    assert (settings.http, settings.pool) == (Settings().http, Settings().pool)
    assert settings.server.data.is_absolute()


def test_every_default_lies_in_its_own_range() -> None:
    for row in ROWS.values():
        loaded = load(environ={}, flags={row.key: row.default})
        if row.key != "server.data":
            assert value_of(loaded, row) == row.default


@given(st.data())
def test_a_variable_sets_what_a_flag_sets(data: st.DataObject) -> None:
    row = ROWS[data.draw(st.sampled_from(FREE))]
    value = data.draw(good_values(row))
    text = str(value).lower() if row.type is bool else str(value)

    by_variable = load(environ={row.variable: text})
    by_flag = load(environ={}, flags={row.key: value})

    assert value_of(by_variable, row) == value == value_of(by_flag, row)
    assert by_variable == by_flag


def test_a_flag_wins_over_the_environment() -> None:
    settings = load(
        environ={"EVENTD_REGION": "cn-env", "EVENTD_POOL_BLANKS": "3"},
        flags={"server.region": "cn-flag", "pool.blanks": None},
    )

    assert (settings.server.region, settings.pool.blanks) == ("cn-flag", 3)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("EVENTD_LISTN", "EVENTD_LISTEN"),
        ("EVENTD_POOL_MAX_INSTANCE", "EVENTD_POOL_MAX_INSTANCES"),
        ("EVENTD_ACCES_KEY_ID", "EVENTD_ACCESS_KEY_ID"),
        ("EVENTD_ENDPONT", "EVENTD_ENDPOINT"),
    ],
)
def test_an_unknown_variable_names_the_nearest_one(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"environment: unknown key '{name}'.*'{near}'"):
        load(environ={name: "x"})


def test_variables_of_the_command_line_and_of_tests_are_no_settings() -> None:
    load(environ={"EVENTD_ENDPOINT": "x", "EVENTD_TEST_KAFKA": "x", "EVENTDX": "x", "PATH": "x"})


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("pool.blanks", "many", "integer, 0 to 64"),
        ("pool.blanks", "65", "integer, 0 to 64"),
        ("pool.blanks", "-1", "integer, 0 to 64"),
        ("pool.blanks", "1.5", "integer, 0 to 64"),
        ("server.drain_s", "nan", r"number \(s\), 0 or more"),
        ("server.drain_s", "inf", r"number \(s\), 0 or more"),
        ("server.insecure_http", "maybe", "true or false"),
        ("server.log_level", "loud", "one of debug, info, warning, error"),
        ("http.max_header_bytes", "0", r"integer \(bytes\), 1024 or more"),
    ],
)
def test_a_wrong_value_names_key_expectation_and_what_was_given(
    key: str, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected {expected}, got '{text}'"):
        load(environ={}, flags={key: text})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"server.access_key_id": "a"}, "give both or neither"),
        ({"server.tls_cert": "a.pem"}, "give both or neither"),
        ({"server.account_id": "12a"}, "server.account_id: expected digits"),
        ({"server.listen": "0.0.0.0:80"}, "can be reached from other machines"),
        ({"server.listen": "[::]:80"}, "can be reached from other machines"),
        ({"server.listen": "example.org:80"}, "can be reached from other machines"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    flags: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(environ={}, flags=flags)


def test_a_listener_off_loopback_is_allowed_when_asked_for_or_with_tls() -> None:
    everywhere = {"server.listen": "0.0.0.0:80"}

    load(environ={}, flags={**everywhere, "server.insecure_http": True})
    load(environ={}, flags={**everywhere, "server.tls_cert": "c.pem", "server.tls_key": "k.pem"})


def test_an_address_is_split_into_host_and_port() -> None:
    assert listen_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert listen_address("[::1]:65535") == ("::1", 65535)
    assert listen_address("localhost:80") == ("localhost", 80)


@pytest.mark.parametrize("text", ["", "80", ":80", "host", "host:", "host:65536", "::1:80", "h:+1"])
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        listen_address(text)


def test_loopback_is_told_from_the_rest() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))
