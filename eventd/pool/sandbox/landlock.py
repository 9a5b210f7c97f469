"""Landlock: walls that an ordinary process puts up around itself."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from eventd.pool.sandbox import kernel

_EXECUTE, _WRITE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_TCP = 3  # bind and connect
_SCOPE = 3  # abstract Unix sockets and signals of others


def abi() -> int:
    """The kernel's version of Landlock, 0 without it."""
    if kernel.CALLS is None:
        return 0
    return max(0, kernel.call("landlock_create_ruleset", None, 0, 1))


def _ruleset(files: int, tcp: int, scope: int, version: int) -> int:
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("3Q", files, tcp, scope)
    return kernel.checked(
        kernel.call("landlock_create_ruleset", attributes, size, 0), "landlock_create_ruleset"
    )


def _enforce(rules: int) -> None:
    try:
        kernel.checked(kernel.call("landlock_restrict_self", rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)


def scope(version: int) -> bool:
    """No abstract Unix socket and no signal beyond this process's own; ABI 6 and later.

    Returns whether the kernel could. Needs no_new_privs.
    """
    if version < 6:
        return False
    _enforce(_ruleset(0, 0, _SCOPE, version))
    return True


def confine(
    version: int,
    *,
    readable: Sequence[str],
    executable: Sequence[str],
    writable: Sequence[str],
    internet: bool,
) -> None:
    """Only these paths and what is below them; without ``internet`` no TCP either (ABI 4).

    Paths that do not exist are left out. Needs no_new_privs.
    """
    files = (1 << 13) - 1
    for needed, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        files |= right if version >= needed else 0
    rules = _ruleset(
        files,
        _TCP if version >= 4 and not internet else 0,
        _SCOPE if version >= 6 else 0,
        version,
    )
    write = files & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)
    for paths, access in (
        (readable, _READ_FILE | _READ_DIR),
        (executable, _EXECUTE | _READ_FILE | _READ_DIR),
        (writable, write),
    ):
        for path in paths:
            _allow(rules, path, access, files)
    _enforce(rules)


def _allow(rules: int, path: str, access: int, files: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            access &= (_EXECUTE | _WRITE | _READ_FILE | _TRUNCATE) & files
        rule = struct.pack("=Qi", access, descriptor)
        kernel.checked(kernel.call("landlock_add_rule", rules, 1, rule, 0), f"landlock {path}")
    finally:
        os.close(descriptor)
