"""Packages are judged before they are unpacked."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.errors import InvalidArgument
from eventd.store.archive import inspect, open_archive, stays_inside

LIMIT = 1 << 20


def build(fill: Callable[[zipfile.ZipFile], object]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        fill(archive)
    return buffer.getvalue()


def named(name: str, mode: int = stat.S_IFREG | 0o644, content: str = "x") -> bytes:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.create_system = 3
    info.external_attr = mode << 16
    return build(lambda archive: archive.writestr(info, content))


def link(name: str, target: str) -> bytes:
    return named(name, stat.S_IFLNK | 0o777, target)


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidArgument) as caught:
        inspect(data, max_unpacked_bytes=LIMIT)
    return str(caught.value)


def test_a_plain_package_is_taken_with_kinds_and_modes() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("lib/", "")
        archive.writestr("lib/index.py", "code")
        runnable = zipfile.ZipInfo("bootstrap")
        runnable.create_system, runnable.external_attr = 3, (stat.S_IFREG | 0o755) << 16
        archive.writestr(runnable, "#!/bin/sh")

    archive = inspect(build(fill), max_unpacked_bytes=LIMIT)

    assert [(e.path, e.kind, e.executable) for e in archive.entries] == [
        ("lib", "dir", False),
        ("lib/index.py", "file", False),
        ("bootstrap", "file", True),
    ]
    assert archive.unpacked_bytes == len("code" + "#!/bin/sh")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.py", "leaves the package with '..'"),
        ("a/../../evil.py", "leaves the package with '..'"),
        ("/etc/passwd", "absolute path"),
        ("C:/evil.py", "absolute path"),
        ("a\\..\\evil.py", "backslash"),
        ("new\nline.py", "control character"),
        ("x" * 300, "too long"),
    ],
)
def test_a_name_that_points_elsewhere_is_refused(name: str, reason: str) -> None:
    message = refusal(named(name))

    assert reason in message
    assert message.startswith("Code: the package is refused: entry ")


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_device_pipe_or_socket_is_refused(kind: int) -> None:
    assert "entry 'node' is a device" in refusal(named("node", kind | 0o644))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/passwd", "absolute path"),
        ("../outside", "leaves the package"),
        ("a/../../outside", "leaves the package"),
        ("", "without a usable target"),
        ("a\x00b", "without a usable target"),
    ],
)
def test_a_link_that_leaves_is_refused(target: str, reason: str) -> None:
    message = refusal(link("current", target))

    assert "entry 'current' is a link" in message
    assert reason in message


def test_a_link_that_leaves_by_way_of_another_link_is_refused() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        for name, target in (("here", "."), ("out", "here/here/../..")):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)

    assert "entry 'out' is a link that leaves" in refusal(build(fill))


def test_an_entry_beneath_a_link_is_refused() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("lib")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "real")
        archive.writestr("lib/index.py", "code")

    assert "'lib/index.py' lies beneath 'lib'" in refusal(build(fill))


def test_links_that_stay_inside_are_taken() -> None:
    data = link("lib/current", "../v1/./x")

    (entry,) = inspect(data, max_unpacked_bytes=LIMIT).entries

    assert (entry.kind, entry.target) == ("link", "../v1/./x")


def test_the_same_file_twice_is_refused() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("index.py", "one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            archive.writestr("./index.py", "two")

    assert "entry 'index.py' is there twice" in refusal(build(fill))


def test_the_same_directory_twice_is_harmless() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("lib/", "")
        archive.writestr("lib//", "")

    assert len(inspect(build(fill), max_unpacked_bytes=LIMIT).entries) == 2


def test_names_that_differ_in_case_are_two_files() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("Index.py", "one")
        archive.writestr("index.py", "two")

    assert len(inspect(build(fill), max_unpacked_bytes=LIMIT).entries) == 2


def test_an_encrypted_entry_is_refused() -> None:
    data = bytearray(named("secret.py"))
    data[6] |= 1  # general purpose bit 0 of the local header
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1

    assert "entry 'secret.py' is encrypted" in refusal(bytes(data))


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + b"\x00" * 40])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    assert "not a readable zip archive" in refusal(data)


def test_damaged_content_is_refused_with_the_entry() -> None:
    data = build(lambda archive: archive.writestr("index.py", "some code here"))
    damaged = data.replace(b"some code here", b"some c0de here")

    assert "entry 'index.py' is damaged" in refusal(damaged)


def test_a_package_that_declares_too_much_is_refused_unread() -> None:
    data = build(lambda archive: archive.writestr("big", b"\x00" * (LIMIT + 1)))

    with pytest.raises(InvalidArgument, match=f"unpacks to {LIMIT + 1} bytes"):
        open_archive(data, max_unpacked_bytes=LIMIT)


def test_a_package_that_lies_about_its_size_is_refused() -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("big", b"\x00" * (LIMIT * 4), zipfile.ZIP_DEFLATED)

    honest = struct.pack("<I", LIMIT * 4)
    data = build(fill).replace(honest, struct.pack("<I", 10))

    assert "entry 'big' is damaged" in refusal(data)


NAMES = st.sampled_from(["a", "b", "c", ".", "..", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join).filter(lambda path: path[:1] != "/")


def slow_stays_inside(target: str, links: dict[str, str]) -> bool:
    """Rewrites the text one step at a time; the kernel gives up after 40 links (ELOOP)."""
    left, at, followed = target, "", 0
    while left and followed <= 40:
        part, _, left = left.partition("/")
        if part == "..":
            if at == "":
                return False
            at = at.rpartition("/")[0]
        elif part not in ("", "."):
            step = f"{at}/{part}".strip("/")
            if step in links:
                left = f"{links[step]}/{left}"
                followed += 1
            else:
                at = step
    return True


@given(PATHS, st.dictionaries(st.sampled_from(["a", "b", "c"]), PATHS, max_size=3))
def test_following_links_agrees_with_a_slow_oracle(target: str, links: dict[str, str]) -> None:
    assert stays_inside("link", target, links) == slow_stays_inside(target, links)


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 255))
def test_a_mangled_package_is_taken_or_refused_but_never_breaks(
    junk: bytes, place: int, value: int
) -> None:
    data = bytearray(build(lambda archive: archive.writestr("index.py", "def handler(): ..." * 9)))
    data[place % len(data)] = value
    data += junk

    try:
        inspect(bytes(data), max_unpacked_bytes=LIMIT)
    except InvalidArgument as error:
        assert "the package is refused" in str(error)  # noqa: PT017 - both outcomes are right
