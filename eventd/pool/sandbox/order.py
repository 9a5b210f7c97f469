"""What the daemon tells its launcher at the start, as one JSON message."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from eventd.pool.sandbox.cgroups import Places

NAMESPACES, USER_NAMESPACES, PROCESS, BARE = 1, 2, 3, 4
LEVEL_NAMES = {
    NAMESPACES: "namespaces",
    USER_NAMESPACES: "namespaces (user)",
    PROCESS: "process",
    BARE: "process, no Landlock",
}


@dataclass(frozen=True, slots=True)
class Order:
    """How to make instances.

    Attributes:
        level: one of the levels above.
        bootstrap: file whose ``serve(sock, code_path)`` runs in every instance.
        run_dir: directory of the launcher's own, for temporary directories.
        blanks: prepared instances to keep for each kind of network that is in use.
        uids: first uid of instances and how many; none: instances stay what the launcher is.
        mark: first of the launcher's marks (``census``).
        groups: where control groups go.
        family: processes that may be moved to a leaf group.
        guard: put up the connect guard; ``allowed`` addresses pass it.
    """

    level: int
    bootstrap: str
    run_dir: str
    blanks: int
    uids: tuple[int, int] = (0, 0)
    mark: int = 0
    groups: Places = field(default_factory=Places)
    family: tuple[int, ...] = ()
    guard: bool = False
    allowed: tuple[tuple[str, int], ...] = ()

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(message: bytes) -> Order:
        content = json.loads(message)
        content["uids"] = tuple(content["uids"])
        content["family"] = tuple(content["family"])
        content["allowed"] = tuple((address, port) for address, port in content["allowed"])
        content["groups"] = Places(**content["groups"])
        return Order(**content)
