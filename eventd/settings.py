"""Reads the settings of ``config`` from a TOML file, the environment and flags."""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eventd.config import (
    GROUPS,
    ConfigError,
    Setting,
    Settings,
    is_loopback,
    listen_address,
    table,
)

CLIENT_VARIABLES = ("EVENTD_CONFIG", "EVENTD_ENDPOINT", "EVENTD_KAFKA")
"""Variables with our prefix that the command line or ``make`` reads; they are no settings."""

_TEST_PREFIX = "EVENTD_TEST_"
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def load(
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings in force: defaults < ``config_file`` < ``environ`` < ``flags``.

    Args:
        config_file: a TOML file that must exist; ``None`` = no file.
        environ: default ``os.environ``.
        flags: by key (``server.listen``); ``None`` as a value = not given. Texts are parsed.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a wrong type, a value out of
            range, settings that contradict each other, a file that cannot be read or parsed.
    """
    known = {row.key: row for row in table()}
    values: dict[str, Any] = {}
    buckets: dict[str, Path] = {}
    triggers: Mapping[str, Mapping[str, Any]] = {}
    if config_file is not None:
        document = _parse_file(config_file)
        buckets = _buckets(document.pop("buckets", {}), config_file)
        triggers = _triggers(document.pop("triggers", {}), config_file)
        values.update(_file_values(document, known, config_file))
    values.update(_environment_values(os.environ if environ is None else environ, known))
    for key, value in (flags or {}).items():
        if value is not None:
            row = known.get(key)
            if row is None:
                raise ConfigError(f"flag: {_unknown(key, known)}")
            values[key] = _value(row, value, "flag", text=isinstance(value, str))
    return _checked(_settings(values, buckets, triggers))


def _parse_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _file_values(
    document: Mapping[str, Any], known: Mapping[str, Setting], path: Path
) -> Iterator[tuple[str, Any]]:
    for group, content in document.items():
        if group not in GROUPS:
            names = [*GROUPS, "buckets", "triggers", *known]
            raise ConfigError(f"{path}: {_unknown(group, names)}")
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {group}: expected a table [{group}], got {content!r}")
        for name, value in content.items():
            row = known.get(f"{group}.{name}")
            if row is None:
                raise ConfigError(f"{path}: {_unknown(f'{group}.{name}', known)}")
            yield row.key, _value(row, value, str(path), text=False)


def _environment_values(
    environ: Mapping[str, str], known: Mapping[str, Setting]
) -> Iterator[tuple[str, Any]]:
    variables = {row.variable: row for row in known.values()}
    for name, text in environ.items():
        if not name.startswith("EVENTD_") or name.startswith(_TEST_PREFIX):
            continue
        if name in CLIENT_VARIABLES:
            continue
        row = variables.get(name)
        if row is None:
            raise ConfigError(f"environment: {_unknown(name, [*variables, *CLIENT_VARIABLES])}")
        yield row.key, _value(row, text, f"environment variable {name}", text=True)


def _unknown(key: str, names: Iterable[str]) -> str:
    """The message for an unknown key; the part after the dot counts for likeness, too."""
    names = list(names)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if not near:
        last = key.rpartition(".")[2]
        tails = {name.rpartition(".")[2]: name for name in names}
        near = [tails[hit] for hit in difflib.get_close_matches(last, tails, n=1, cutoff=0.6)]
    return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _value(row: Setting, value: Any, place: str, *, text: bool) -> Any:
    """``value`` as the row's type; ``text``: it is to be parsed (environment, flag)."""
    parsed = _parsed(row.type, value) if text else value
    if row.type is Path and isinstance(parsed, str) and parsed:
        parsed = Path(parsed)
    elif row.type is float and type(parsed) is int:
        parsed = float(parsed)
    good = type(parsed) is row.type or (row.type is Path and isinstance(parsed, Path))
    if good and isinstance(parsed, int | float) and row.type is not bool:
        good = row.at_least <= parsed <= row.at_most and math.isfinite(parsed)
    if good and row.choices:
        good = parsed in row.choices
    if not good:
        raise ConfigError(f"{place}: {row.key}: expected {row.expected}, got {value!r}")
    return parsed


def _parsed(kind: type, text: str) -> Any:
    """``text`` as ``kind``, or unchanged when it is none (the caller then refuses it)."""
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return words.get(text.strip().lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _buckets(content: Any, path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, bucket in _tables("buckets", content, path):
        if not _BUCKET_NAME.fullmatch(name):
            raise ConfigError(
                f"{path}: buckets.{name}: expected a bucket name of 3 to 63 lower-case letters, "
                "digits and '-', not starting or ending with '-'"
            )
        for key in bucket:
            if key != "path":
                raise ConfigError(
                    f"{path}: " + _unknown(f"buckets.{name}.{key}", [f"buckets.{name}.path"])
                )
        directory = bucket.get("path")
        if not isinstance(directory, str) or not directory:
            raise ConfigError(
                f"{path}: buckets.{name}.path: expected the path of a directory, got {directory!r}"
            )
        found[name] = (path.parent / Path(directory).expanduser()).absolute()
    return found


def _triggers(content: Any, path: Path) -> dict[str, Mapping[str, Any]]:
    return dict(_tables("triggers", content, path))


def _tables(group: str, content: Any, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: {group}: expected tables [{group}.NAME], got {content!r}")
    for name, entry in content.items():
        if not isinstance(entry, dict):
            raise ConfigError(
                f"{path}: {group}.{name}: expected a table [{group}.{name}], got {entry!r}"
            )
        yield name, entry


def _settings(
    values: Mapping[str, Any],
    buckets: Mapping[str, Path],
    triggers: Mapping[str, Mapping[str, Any]],
) -> Settings:
    settings = Settings(buckets=buckets, triggers=triggers)
    for group in GROUPS:
        given = {
            key.partition(".")[2]: v for key, v in values.items() if key.startswith(f"{group}.")
        }
        if given:
            settings = replace(settings, **{group: replace(getattr(settings, group), **given)})
    data = settings.server.data.expanduser().absolute()
    return replace(settings, server=replace(settings.server, data=data))


def _checked(settings: Settings) -> Settings:
    """Refuse settings that contradict each other."""
    server = settings.server
    host, _ = listen_address(server.listen)
    if bool(server.access_key_id) != bool(server.access_key_secret):
        raise ConfigError("server.access_key_id and server.access_key_secret: give both or neither")
    if server.account_id and not re.fullmatch(r"[0-9]{1,32}", server.account_id):
        raise ConfigError(f"server.account_id: expected digits, got {server.account_id!r}")
    if bool(server.tls_cert) != bool(server.tls_key):
        raise ConfigError("server.tls_cert and server.tls_key: give both or neither")
    if not server.tls_cert and not server.insecure_http and not is_loopback(host):
        raise ConfigError(
            f"server.listen: {server.listen} can be reached from other machines and request bodies "
            "are not signed: give tls_cert and tls_key, or --insecure-http"
        )
    return settings
