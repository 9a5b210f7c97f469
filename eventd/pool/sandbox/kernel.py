"""Linux calls that the standard library lacks, over ctypes; for single-threaded processes.

Every function raises ``OSError`` with the call's name. Numbers differ by machine: ``CALLS`` is
``None`` on one that has no table, and then there is no sandbox beyond another uid.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

LIBC = ctypes.PyDLL(None, use_errno=True)  # PyDLL keeps the GIL: nothing else runs here

NEWTIME, NEWNS, NEWCGROUP, NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
NEWIPC, NEWUSER, NEWPID, NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000

RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND = 1, 2, 4, 8, 32, 4096
REC, PRIVATE, SLAVE = 16384, 1 << 18, 1 << 19

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_CAPBSET_DROP = 1, 4, 15, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, os.O_CLOEXEC, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

# The calls from 424 on have one number on every machine.
_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "open_tree_attr": 467,
}
_X86_64 = {
    "ioctl": 16, "socket": 41, "clone": 56, "ptrace": 101, "syslog": 103, "capset": 126,
    "uselib": 134, "personality": 135, "ustat": 136, "sysfs": 139, "vhangup": 153,
    "modify_ldt": 154, "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163,
    "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180,
    "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237, "set_mempolicy": 238,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
    "unshare": 272, "vmsplice": 278, "move_pages": 279, "perf_event_open": 298,
    "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "seccomp": 317, "kexec_file_load": 320, "bpf": 321,
    "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41,
    "nfsservctl": 42, "chroot": 51, "vhangup": 58, "quotactl": 60, "vmsplice": 75, "acct": 89,
    "capset": 91, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
    "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142,
    "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171,
    "socket": 198, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220,
    "swapon": 224, "swapoff": 225, "mbind": 235, "set_mempolicy": 237, "migrate_pages": 238,
    "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262, "name_to_handle_at": 264,
    "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
    "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "seccomp": 277, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
_TABLES = {"x86_64": _X86_64, "aarch64": _AARCH64}

MACHINE = platform.machine()
CALLS: dict[str, int] | None = {**_COMMON, **_TABLES[MACHINE]} if MACHINE in _TABLES else None


def checked(result: int, what: str) -> int:
    """``result`` of a call, or its errno as ``OSError``."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def call(name: str, *arguments: int | bytes | None) -> int:
    """A system call by name; bytes are passed by address. The bare result, -1 for an error."""
    if CALLS is None:
        raise OSError(38, f"{name}: no table of system calls for {MACHINE}")
    words = [
        ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a or 0) for a in arguments
    ]
    return int(LIBC.syscall(ctypes.c_long(CALLS[name]), *words))


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags), f"unshare {flags:#x}")


def setns(descriptor: int, flags: int) -> None:
    checked(LIBC.setns(descriptor, flags), f"setns {flags:#x}")


def prctl(option: int, argument: int = 0) -> None:
    checked(
        LIBC.prctl(option, ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3), f"prctl {option}"
    )


def set_name(name: str) -> None:
    """The process's name in ``ps``; 15 bytes count."""
    LIBC.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def mount(
    source: str | None,
    target: str,
    kind: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    words = [None if text is None else text.encode() for text in (source, target, kind, data)]
    result = LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    checked(result, f"mount {kind or 'bind'} {target}")


def unmount(target: str) -> None:
    """Lazily: what is still used goes when it no longer is."""
    checked(LIBC.umount2(target.encode(), 2), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    checked(call("pivot_root", new.encode(), old.encode()), "pivot_root")


def read_only_tree(path: str) -> int:
    """A detached read-only mount of ``path``, with what is mounted below it, as a descriptor."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    tree = checked(call("open_tree", AT_FDCWD, path.encode(), flags), f"open_tree {path}")
    try:
        wanted = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        attributes = struct.pack("4Q", wanted, 0, 0, 0)
        checked(
            call("mount_setattr", tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, 32),
            f"mount_setattr {path}",
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def attach(tree: int, target: str) -> None:
    """Mount the detached ``tree`` at ``target``."""
    checked(
        call("move_mount", tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH),
        f"move_mount {target}",
    )


def drop_capabilities() -> None:
    """None left, neither effective nor permitted nor inheritable."""
    checked(call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24)), "capset")


def drop_bounding_set() -> None:
    """No later ``execve`` gives a capability back; what is effective now stays."""
    for capability in range(64):
        if LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # one past the kernel's last, or not permitted: then there is nothing to lose


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor from 3 on that is not in ``kept``."""
    first = 3
    for descriptor in [*sorted(d for d in set(kept) if d > 2), 1 << 30]:
        if descriptor > first and CALLS is None:
            os.closerange(first, min(descriptor, 1 << 16))
        elif descriptor > first:
            checked(call("close_range", first, descriptor - 1, 0), "close_range")
        first = descriptor + 1


def die_with_parent(parent: int) -> None:
    """SIGKILL when the parent ends; at once if it already did. A change of uid undoes it."""
    prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() not in (parent, 0):  # 0: the parent is outside of our pid namespace
        os._exit(1)


def threads() -> int:
    """How many threads this process has; namespaces are changed for the calling one only."""
    return len(os.listdir("/proc/self/task"))
