"""The system call filter of instances: a deny list, as a BPF program made once.

Refused calls give EPERM, not death, so that libraries that only try them go on. ``clone3`` gives
ENOSYS (its flags are behind a pointer), so that libc falls back to ``clone``. Foreign ABIs are
killed: their numbers would pass the list.
"""

from __future__ import annotations

import ctypes
import struct

from eventd.pool.sandbox import kernel

DENIED = (
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "swapon", "swapoff", "reboot",
    "sethostname", "setdomainname", "init_module", "finit_module", "delete_module", "kexec_load",
    "kexec_file_load", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key",
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "open_by_handle_at",
    "name_to_handle_at", "io_uring_setup", "io_uring_enter", "io_uring_register", "acct",
    "quotactl", "quotactl_fd", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex",
    "iopl", "ioperm", "syslog", "vhangup", "personality", "lookup_dcookie", "fsopen", "fsconfig",
    "fsmount", "fspick", "open_tree", "open_tree_attr", "move_mount", "mount_setattr",
    "move_pages", "migrate_pages", "mbind", "set_mempolicy", "nfsservctl", "uselib", "ustat",
    "sysfs", "fanotify_init", "modify_ldt", "vmsplice",
)  # fmt: skip

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 0x50000 | 1, 0x50000 | 38, 0x50000 | 97
_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEW_NAMESPACES = 0x7E020080
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_Step = tuple[int, int, int, int]
_TIOCSTI, _TIOCLINUX, _TIOCCONS = 0x5412, 0x541C, 0x541D


def program(*, internet: bool = True) -> bytes:
    """The filter for this machine; without ``internet`` only Unix and netlink sockets pass."""
    calls = kernel.CALLS
    if calls is None:
        raise OSError(38, f"no table of system calls for {kernel.MACHINE}")
    families = (_UNIX, _INET, _INET6, _NETLINK) if internet else (_UNIX, _NETLINK)
    steps = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, _ARCHES[kernel.MACHINE]), (_RETURN, 0, 0, _KILL)]
    steps.append((_LOAD, 0, 0, _NUMBER))
    if kernel.MACHINE == "x86_64":
        steps += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # the x32 numbers
    steps += [(_EQUAL, 0, 1, calls["clone3"]), (_RETURN, 0, 0, _ENOSYS)]
    steps += _argument(calls["clone"], _FIRST, [(_ANY_BIT, 0, 1, _NEW_NAMESPACES)], _EPERM)
    steps += _allowed(calls["socket"], _FIRST, families, _EAFNOSUPPORT)
    steps += _refused(calls["ioctl"], _SECOND, (_TIOCSTI, _TIOCLINUX, _TIOCCONS), _EPERM)
    denied = sorted(calls[name] for name in DENIED if name in calls)
    steps += [(_EQUAL, len(denied) - i, 0, number) for i, number in enumerate(denied)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _argument(number: int, offset: int, test: list[_Step], answer: int) -> list[_Step]:
    body = [(_LOAD, 0, 0, offset), *test, (_RETURN, 0, 0, answer), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _refused(number: int, offset: int, values: tuple[int, ...], answer: int) -> list[_Step]:
    tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    body = [(_LOAD, 0, 0, offset), *tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, answer)]
    return [(_EQUAL, 0, len(body), number), *body]


def _allowed(number: int, offset: int, values: tuple[int, ...], answer: int) -> list[_Step]:
    tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    body = [(_LOAD, 0, 0, offset), *tests, (_RETURN, 0, 0, answer), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def apply(filter_program: bytes) -> None:
    """Put this process and all its children under the filter, for good. Needs no_new_privs."""
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    head = struct.pack("HxxxxxxQ", len(filter_program) // 8, ctypes.addressof(buffer))
    kernel.checked(kernel.call("seccomp", 1, 0, head), "seccomp")
