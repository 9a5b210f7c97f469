"""How a client on this machine finds the daemon and may speak to it: two files in DATA.

``DATA/access-key`` (mode 0600) holds the keys that the first start made up, one ``NAME=value`` a
line, so a shell can source it. ``DATA/endpoint`` holds the URL of the running daemon.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eventd.config import ConfigError, ServerSettings

KEY_FILE = "access-key"
ENDPOINT_FILE = "endpoint"

_ID = "EVENTD_ACCESS_KEY_ID"
_SECRET = "EVENTD_ACCESS_KEY_SECRET"
_ACCOUNT = "EVENTD_ACCOUNT_ID"
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class LocalAccess:
    """The key pair and the account in force.

    Attributes:
        written: the key file, when this call wrote it; ``None`` when nothing was written.
    """

    access_key_id: str
    access_key_secret: str
    account_id: str
    written: Path | None = None


def load_or_create_access_key(data_dir: Path, settings: ServerSettings) -> LocalAccess:
    """The key pair and account id of this installation; what is missing is made up and kept.

    Settings win over the file. A key from the settings is never written to disk. Blocking (a few
    small files, two syncs at the first start).

    Raises:
        ConfigError: the file exists and cannot be read, or others than its owner may read it.
    """
    path = data_dir / KEY_FILE
    kept = read_access_key(data_dir)
    new: dict[str, str] = {}
    if not settings.access_key_id and _ID not in kept:
        new[_ID] = "LTAI" + _random_text(20)
        new[_SECRET] = _random_text(30)
    if not settings.account_id and _ACCOUNT not in kept:
        new[_ACCOUNT] = str(secrets.randbelow(9 * 10**15) + 10**15)
    if new:
        kept = {**kept, **new}
        _replace(path, "".join(f"{name}={value}\n" for name, value in kept.items()), 0o600)
    return LocalAccess(
        settings.access_key_id or kept[_ID],
        settings.access_key_secret or kept[_SECRET],
        settings.account_id or kept[_ACCOUNT],
        path if new else None,
    )


def read_access_key(data_dir: Path) -> Mapping[str, str]:
    """The variables of ``DATA/access-key``; empty if there is no such file. Raises
    ``ConfigError`` as ``load_or_create_access_key`` does."""
    path = data_dir / KEY_FILE
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if mode & 0o077:
        raise ConfigError(f"{path}: others may read it (mode {mode & 0o777:o}); chmod 600 {path}")
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not equals or name not in (_ID, _SECRET, _ACCOUNT) or not value:
            raise ConfigError(
                f"{path}: expected lines {_ID}=..., {_SECRET}=... and {_ACCOUNT}=..., "
                f"got one that starts with {name[:24]!r}"
            )
        values[name] = value
    if (_ID in values) != (_SECRET in values):
        raise ConfigError(f"{path}: expected {_ID} and {_SECRET}, found only one of them")
    return values


def write_endpoint(data_dir: Path, url: str) -> None:
    """Tell clients on this machine where the daemon listens; called once it does."""
    _replace(data_dir / ENDPOINT_FILE, url + "\n", 0o644)


def read_endpoint(data_dir: Path) -> str | None:
    """The URL that ``write_endpoint`` left; the daemon may have gone since."""
    try:
        return (data_dir / ENDPOINT_FILE).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{data_dir / ENDPOINT_FILE}: cannot be read: {error}") from None


def remove_endpoint(data_dir: Path) -> None:
    """The daemon stops listening; a missing file is fine."""
    (data_dir / ENDPOINT_FILE).unlink(missing_ok=True)


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _replace(path: Path, text: str, mode: int) -> None:
    """Put a whole file in place, synced: a crash leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
