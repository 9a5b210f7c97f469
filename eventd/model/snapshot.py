"""What an instance runs: one function of one version, with all that can change its behaviour."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class FunctionSnapshot:
    """One function at one version.

    Attributes:
        version: the version id, 0 for the working copy (``LATEST``).
        memory_mb, timeout_s, initialization_timeout_s, instance_concurrency: FC's limits.
        environment: user variables only.
        code_digest: key of the package in ``Blobs``.
        code_checksum: FC's ``codeChecksum``.
        key: identity of the instances that may serve it: incarnation, function, version and the
            hash of everything above; two versions never share an instance.
    """

    service: str
    function: str
    incarnation: str
    version: int
    runtime: str
    handler: str
    initializer: str
    memory_mb: int
    timeout_s: int
    initialization_timeout_s: int
    instance_concurrency: int
    environment: Mapping[str, str]
    code_digest: str
    code_checksum: str
    role: str = ""
    log_project: str = ""
    log_store: str = ""
    internet_access: bool = True
    disk_mb: int = 512
    cpu: float | None = None
    lifecycle: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        content = {name: getattr(self, name) for name in self.__slots__ if name != "key"}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode())
        object.__setattr__(self, "key", digest.hexdigest()[:32])

    @property
    def version_name(self) -> str:
        """``LATEST`` or the version id, as ``X-Fc-Invocation-Service-Version`` shows it."""
        return str(self.version) if self.version else "LATEST"
