"""Settings from ``eventd.toml``."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventd.config import ConfigError
from eventd.settings import load


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def] # a local helper
    def written(text: str) -> Path:
        path = tmp_path / "eventd.toml"
        path.write_text(text)
        return path

    return written


def test_file_is_weaker_than_environment_and_environment_weaker_than_flag(write) -> None:  # type: ignore[no-untyped-def]
    path = write('[server]\nregion = "file"\nlog_level = "debug"\n[pool]\nblanks = 1\n')

    settings = load(
        path, {"EVENTD_LOG_LEVEL": "error", "EVENTD_POOL_BLANKS": "2"}, {"pool.blanks": 3}
    )

    assert settings.server.region == "file"
    assert settings.server.log_level == "error"
    assert settings.pool.blanks == 3


def test_buckets_and_triggers_have_tables_of_their_own(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write(
        '[buckets.photos]\npath = "in/photos"\n[buckets.far]\npath = "/srv/far"\n'
        '[triggers.kafka]\nclient = { id = "x" }\n'
    )

    settings = load(path, {})

    assert settings.buckets == {"photos": tmp_path / "in/photos", "far": Path("/srv/far")}
    assert settings.triggers == {"kafka": {"client": {"id": "x"}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sever]\n", r"unknown key 'sever'; did you mean 'server'\?"),
        ("[pool]\nmax_instnces = 1\n", r"'pool.max_instnces'; did you mean 'pool.max_instances'\?"),
        ("blanks = 1\n", r"unknown key 'blanks'; did you mean 'pool.blanks'\?"),
        ("qqqq = 1\n", r"unknown key 'qqqq'$"),
        ("pool = 3\n", r"pool: expected a table \[pool\], got 3"),
        ('[pool]\nblanks = "2"\n', "pool.blanks: expected integer, 0 to 64, got '2'"),
        ("[pool]\nblanks = true\n", "pool.blanks: expected integer, 0 to 64, got True"),
        ("[server]\ndrain_s = true\n", r"server.drain_s: expected number \(s\), 0 or more"),
        ("[server]\nregion = 3\n", "server.region: expected text, got 3"),
        ("[server]\ndata = 3\n", "server.data: expected path, got 3"),
        ("[server]\ninsecure_http = 1\n", "server.insecure_http: expected true or false, got 1"),
        ("[buckets.A]\npath = '/x'\n", "buckets.A: expected a bucket name"),
        ("[buckets.abc]\n", "buckets.abc.path: expected the path of a directory, got None"),
        ("[buckets.abc]\npth = '/x'\n", "'buckets.abc.pth'; did you mean 'buckets.abc.path'"),
        ("[buckets]\nabc = 1\n", r"buckets.abc: expected a table \[buckets.abc\], got 1"),
        ("triggers = 1\n", r"triggers: expected tables \[triggers.NAME\], got 1"),
        ("[server\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(write, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    path = write(text)

    with pytest.raises(ConfigError, match=message) as caught:
        load(path, {})

    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eventd\.toml: No such file"):
        load(tmp_path / "eventd.toml", {})
    (tmp_path / "eventd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"eventd\.toml: not valid TOML"):
        load(tmp_path / "eventd.toml", {})
