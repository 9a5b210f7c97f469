"""Judging a code package before a byte of it is unpacked. Pure: bytes in, a plan out.

A zip comes from outside: its names, modes and sizes are claims. What is not a regular file, a
directory or a link that stays inside is refused, with the entry named.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from eventd.errors import InvalidArgument

MAX_ENTRIES = 200_000
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 2048
_MAX_LINK_BYTES = 4096
_MAX_LINK_STEPS = 40
_CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,  # a damaged bz2 stream
    RuntimeError,  # an unknown compression method, a password
    ValueError,  # names that are not UTF-8, offsets below zero
)
"""What ``zipfile`` raises on a damaged archive."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to unpack.

    Attributes:
        path: relative, ``/``-separated, no ``.`` or ``..``.
        kind: ``file``, ``dir`` or ``link``.
        executable: the zip says so for somebody.
        target: of a link.
    """

    path: str
    kind: str
    info: zipfile.ZipInfo
    executable: bool = False
    target: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """A package that was found good; directories that the zip does not name are implied."""

    source: zipfile.ZipFile
    entries: tuple[Entry, ...]
    unpacked_bytes: int


def open_archive(data: bytes, *, max_unpacked_bytes: int) -> Archive:
    """Judge names, kinds, links and declared sizes of the zip ``data``.

    Raises ``InvalidArgument`` naming the entry at fault.
    """
    try:
        source = zipfile.ZipFile(io.BytesIO(data))
        infos = source.infolist()
    except _DAMAGE as error:
        raise _refused(f"it is not a readable zip archive ({error})") from None
    if len(infos) > MAX_ENTRIES:
        raise _refused(f"it has {len(infos)} entries (max: {MAX_ENTRIES})")
    total = sum(info.file_size for info in infos)
    if total > max_unpacked_bytes:
        raise _refused(f"it unpacks to {total} bytes (max: {max_unpacked_bytes})")
    entries = tuple(_judge(source, info) for info in infos)
    _check_tree(entries)
    return Archive(source, entries, total)


def inspect(data: bytes, *, max_unpacked_bytes: int) -> Archive:
    """``open_archive``, and every byte unpacked once and checked against its CRC; blocks."""
    archive = open_archive(data, max_unpacked_bytes=max_unpacked_bytes)
    unpacked = 0
    for entry in archive.entries:
        if entry.kind == "dir":
            continue
        for chunk in chunks(archive, entry):
            unpacked += len(chunk)
            if unpacked > max_unpacked_bytes:
                raise _refused(f"it unpacks to more than {max_unpacked_bytes} bytes")
    return archive


def chunks(archive: Archive, entry: Entry) -> Iterator[bytes]:
    """The content of ``entry``. Raises ``InvalidArgument`` when it is damaged."""
    try:
        with archive.source.open(entry.info) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except _DAMAGE as error:
        raise _refused(f"entry '{entry.path}' is damaged ({error})") from None


def _refused(reason: str) -> InvalidArgument:
    error = InvalidArgument(f"Code: the package is refused: {reason}")
    error.field = "code"
    return error


def _judge(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry:
    shown = info.orig_filename[:200]
    if info.flag_bits & 0x1:
        raise _refused(f"entry '{shown}' is encrypted")
    path = _safe_path(info.orig_filename)
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return Entry(path, "link", info, target=_link_target(source, info, path))
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(f"entry '{shown}' is a device, pipe or socket")
    if info.orig_filename.endswith("/"):
        return Entry(path, "dir", info)
    if kind == stat.S_IFDIR and info.file_size == 0:
        return Entry(path, "dir", info)
    return Entry(path, "file", info, executable=bool(mode & 0o111))


def _safe_path(name: str) -> str:
    shown = name[:200]
    if "\x00" in name or any(ord(character) < 32 for character in name):
        raise _refused(f"entry {shown!r} has a control character in its name")
    if "\\" in name:
        raise _refused(f"entry '{shown}' has a backslash in its name; '/' separates directories")
    if name.startswith("/") or name[1:2] == ":":
        raise _refused(f"entry '{shown}' has an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(f"entry '{shown}' leaves the package with '..'")
    encoded = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if any(size > _MAX_NAME_BYTES for size in encoded) or sum(encoded) > _MAX_PATH_BYTES:
        raise _refused(f"entry '{shown}' has a name that is too long")
    return "/".join(parts)


def _link_target(source: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> str:
    if info.file_size > _MAX_LINK_BYTES:
        raise _refused(f"entry '{path}' is a link with a target that is too long")
    try:
        target = source.read(info).decode()
    except _DAMAGE as error:
        raise _refused(f"entry '{path}' is damaged ({error})") from None
    if not target or "\x00" in target:
        raise _refused(f"entry '{path}' is a link without a usable target")
    if target.startswith("/"):
        raise _refused(f"entry '{path}' is a link to the absolute path '{target[:200]}'")
    return target


def _check_tree(entries: tuple[Entry, ...]) -> None:
    """Each path once, nothing beneath a file or a link, every link stays inside."""
    kinds: dict[str, str] = {}
    links: dict[str, str] = {}
    for entry in entries:
        before = kinds.get(entry.path)
        if before is not None and not before == entry.kind == "dir":
            raise _refused(f"entry '{entry.path}' is there twice")
        if not entry.path and entry.kind != "dir":
            raise _refused(f"entry '{entry.info.orig_filename[:200]}' has no name")
        kinds[entry.path] = entry.kind
        if entry.kind == "link":
            links[entry.path] = entry.target
    for path in kinds:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if kinds.get(parent, "dir") != "dir":
                raise _refused(f"entry '{path}' lies beneath '{parent}', which is no directory")
    for path, target in links.items():
        if not stays_inside(path, target, links):
            raise _refused(f"entry '{path}' is a link that leaves the package ('{target[:200]}')")


def stays_inside(path: str, target: str, links: dict[str, str]) -> bool:
    """Whether following the link at ``path`` never steps above the package, other links followed
    on the way. A chain of more than 40 links (a loop) counts as inside: it leads nowhere."""
    here = path.split("/")[:-1]
    ahead = list(reversed(target.split("/")))
    steps = 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                return False
            here.pop()
            continue
        here.append(part)
        onward = links.get("/".join(here))
        if onward is not None:
            steps += 1
            if steps > _MAX_LINK_STEPS:
                return True
            here.pop()
            ahead.extend(reversed(onward.split("/")))
    return True
