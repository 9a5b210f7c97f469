"""FC's resources as frozen data. ``config`` holds the writable fields in FC's own JSON spelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]

LATEST = "LATEST"
"""The qualifier of the editable working copy."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service; its functions, versions and aliases name it.

    Attributes:
        incarnation: hidden id of this life of the service (DESIGN.md section 2).
        config: ``description``, ``role``, ``internetAccess``, ``logConfig``, ... with every default
            filled in, as ``GetService`` answers them.
        created_time, last_modified_time: ``YYYY-MM-DDThh:mm:ssZ``.
        last_version: the highest version id ever given out, 0 at first; never goes back.
    """

    name: str
    service_id: str
    incarnation: str
    etag: str
    created_time: str
    last_modified_time: str
    config: JsonObject
    last_version: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the working copy, or (inside a ``Version``) of a snapshot.

    Attributes:
        config: every writable field but ``code`` with its default filled in, as ``GetFunction``
            answers them.
        code_digest: SHA-256 (hex) of the package, its key in ``Blobs``.
        code_checksum: CRC-64/XZ of the package as a decimal string (FC's ``codeChecksum``).
        code_size: bytes of the package.
    """

    service: str
    name: str
    function_id: str
    etag: str
    created_time: str
    last_modified_time: str
    config: JsonObject
    code_digest: str
    code_checksum: str
    code_size: int


@dataclass(frozen=True, slots=True)
class TriggerRecord:
    """A trigger as it is stored; adapters see ``plugin.Trigger`` with a typed config."""

    service: str
    function: str
    name: str
    trigger_id: str
    type: str
    source_arn: str | None
    invocation_role: str | None
    qualifier: str | None
    description: str
    config: JsonObject
    etag: str
    created_time: str
    last_modified_time: str


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable snapshot of a service and all its functions.

    Attributes:
        service_config: the service's config at publish.
        functions: by name; they refer to code by digest, nothing is copied.
        content_hash: hash over service config and functions, to refuse a publish without change.
    """

    service: str
    version_id: int
    description: str
    created_time: str
    last_modified_time: str
    service_config: JsonObject
    functions: Mapping[str, Function]
    content_hash: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A pointer to a version; ``additional_version_weight`` maps version id to 0.0-1.0."""

    service: str
    name: str
    version_id: str
    description: str
    additional_version_weight: Mapping[str, float] | None
    etag: str
    created_time: str
    last_modified_time: str
    extra: JsonObject = field(default_factory=dict)
    """``resolvePolicy``, ``routePolicy`` as given."""


@dataclass(frozen=True, slots=True)
class AsyncConfig:
    """Asynchronous invocation settings of one function and qualifier."""

    service: str
    function: str
    qualifier: str
    config: JsonObject
    created_time: str
    last_modified_time: str
