"""The files by which a client finds the daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventd.config import ConfigError, ServerSettings
from eventd.local_access import (
    load_or_create_access_key,
    read_access_key,
    read_endpoint,
    remove_endpoint,
    write_endpoint,
)


def test_the_first_start_makes_up_a_key_that_only_its_owner_may_read(tmp_path: Path) -> None:
    access = load_or_create_access_key(tmp_path / "data", ServerSettings())

    path = tmp_path / "data" / "access-key"
    assert access.written == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert access.access_key_id.startswith("LTAI")
    assert len(access.access_key_secret) == 30
    assert len(access.account_id) == 16
    assert access.account_id.isdigit()


def test_the_next_start_uses_the_same_key(tmp_path: Path) -> None:
    first = load_or_create_access_key(tmp_path, ServerSettings())

    second = load_or_create_access_key(tmp_path, ServerSettings())

    assert second.written is None
    assert (second.access_key_id, second.access_key_secret, second.account_id) == (
        first.access_key_id,
        first.access_key_secret,
        first.account_id,
    )


def test_settings_win_and_their_secret_is_never_written(tmp_path: Path) -> None:
    given = ServerSettings(access_key_id="mine", access_key_secret="hidden")

    access = load_or_create_access_key(tmp_path, given)

    assert (access.access_key_id, access.access_key_secret) == ("mine", "hidden")
    assert "hidden" not in (tmp_path / "access-key").read_text()
    again = load_or_create_access_key(tmp_path, ServerSettings())
    assert again.account_id == access.account_id
    assert again.access_key_id.startswith("LTAI")


def test_with_all_of_it_given_nothing_is_written(tmp_path: Path) -> None:
    given = ServerSettings(access_key_id="a", access_key_secret="b", account_id="7")

    assert load_or_create_access_key(tmp_path / "none", given).account_id == "7"
    assert not (tmp_path / "none").exists()


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    load_or_create_access_key(tmp_path, ServerSettings())
    (tmp_path / "access-key").chmod(0o644)

    with pytest.raises(ConfigError, match="others may read it"):
        load_or_create_access_key(tmp_path, ServerSettings())


@pytest.mark.parametrize("text", ["nonsense\n", "EVENTD_ACCESS_KEY_ID=\n", "OTHER=1\n"])
def test_a_damaged_key_file_is_refused_without_showing_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "access-key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="expected lines EVENTD_ACCESS_KEY_ID="):
        read_access_key(tmp_path)


def test_half_a_key_pair_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access-key"
    path.write_text("EVENTD_ACCESS_KEY_ID=LTAIx\n")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="found only one of them"):
        read_access_key(tmp_path)


def test_the_endpoint_is_there_while_the_daemon_says_so(tmp_path: Path) -> None:
    assert read_endpoint(tmp_path) is None

    write_endpoint(tmp_path, "http://127.0.0.1:1")
    write_endpoint(tmp_path, "http://127.0.0.1:2")
    assert read_endpoint(tmp_path) == "http://127.0.0.1:2"

    remove_endpoint(tmp_path)
    remove_endpoint(tmp_path)
    assert read_endpoint(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
