"""FC's names and JSON for changes of objects.

Source: Function Compute 2.0, "OSS trigger overview" and "Formats of event for different triggers".
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote_from_bytes

import orjson

from eventd.plugin import Event

CREATED = "oss:ObjectCreated:PutObject"
REMOVED = "oss:ObjectRemoved:DeleteObject"

_CREATED_CALLS = (
    "PutObject",
    "PutSymlink",
    "PostObject",
    "CopyObject",
    "InitiateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AppendObject",
    "*",
)
_REMOVED_CALLS = ("DeleteObject", "DeleteObjects", "AbortMultipartUpload", "*")

EVENT_NAMES = frozenset(
    (
        *(f"oss:ObjectCreated:{call}" for call in _CREATED_CALLS),
        *(f"oss:ObjectRemoved:{call}" for call in _REMOVED_CALLS),
        "oss:ObjectModified:UpdateObjectMeta",
        "oss:ObjectReplication:ObjectCreated",
        "oss:ObjectReplication:ObjectModified",
        "oss:ObjectReplication:ObjectRemoved",
    )
)
"""Every name that a trigger may ask for; a directory makes ``CREATED`` and ``REMOVED``."""

_ARN = re.compile(r"acs:oss:([^:]*):([^:]*):([A-Za-z0-9][A-Za-z0-9._-]{0,62})")
_RULE = b'"ruleId":""'


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as a trigger's ``sourceArn`` names it."""

    arn: str
    region: str
    account: str
    name: str


def parse_arn(arn: str | None) -> Bucket:
    """``ValueError``: not ``acs:oss:REGION:ACCOUNT:BUCKET``."""
    match = _ARN.fullmatch(arn or "")
    if match is None:
        raise ValueError(f"expected acs:oss:REGION:ACCOUNT:BUCKET, found {arn!r}")
    return Bucket(match[0], match[1], match[2], match[3])


@dataclass(frozen=True, slots=True)
class Change:
    """An object was put (``new`` tells the file's state) or removed (``new`` is empty).

    Attributes:
        path: below the bucket; undecodable bytes as surrogates.
        old, new: ``inode:size:mtime_ns`` before and after; empty = no such object.
    """

    path: str
    old: str
    new: str


def object_key(path: str) -> str:
    """The key for a path: the same text, but bytes that are no UTF-8 are percent-encoded."""
    if path.isascii():
        return path
    try:
        path.encode()
    except UnicodeEncodeError:
        return "".join(
            quote_from_bytes(os.fsencode(sign)) if "\udc80" <= sign <= "\udcff" else sign
            for sign in path
        )
    return path


def event_time(now: datetime) -> str:
    """UTC; FC shows whole seconds with ``.000``."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def change_event(bucket: Bucket, change: Change, moment: str) -> Event:
    """The event of a change, with an empty ``ruleId``; ``with_rule`` fills it in.

    ``moment``: from ``event_time``.
    """
    key = object_key(change.path)
    type_ = CREATED if change.new else REMOVED
    old_size, new_size = _size(change.old), _size(change.new)
    identity = hashlib.md5(
        f"{type_}\n{key}\n{change.old}\n{change.new}".encode(), usedforsecurity=False
    ).hexdigest()
    etag = hashlib.md5((change.new or change.old).encode(), usedforsecurity=False).hexdigest()
    request_id = identity[:24].upper()
    meta = "" if not change.new else f'"objectMeta":{{"mimeType":"{_mime_type(key)}"}},'
    # Everything after the key is fixed text, so that ``with_rule`` finds its place from the right.
    data = (
        f'{{"events":[{{"eventName":"{type_.removeprefix("oss:")}","eventSource":"acs:oss",'
        f'"eventTime":"{moment}","eventVersion":"1.0","oss":{{"bucket":{{"arn":"{bucket.arn}",'
        f'"name":"{bucket.name}","ownerIdentity":"{bucket.account}","virtualBucket":""}},'
        f'"object":{{"deltaSize":{new_size - old_size},"eTag":"{etag.upper()}",'
        f'"key":{orjson.dumps(key).decode()},{meta}"size":{new_size}}},'
        f'"ossSchemaVersion":"1.0","ruleId":""}},"region":"{bucket.region}",'
        f'"requestParameters":{{"sourceIPAddress":"127.0.0.1"}},'
        f'"responseElements":{{"requestId":"{request_id}"}},'
        f'"userIdentity":{{"principalId":"{bucket.account}"}}}}]}}'
    )
    return Event(
        id=request_id,
        source=bucket.arn,
        type=type_,
        subject=key,
        time=moment,
        data=data.encode(),
        ordering_key=key,
    )


def rule_id(trigger_id: str) -> str:
    """40 hex digits, the same for the life of a trigger."""
    return hashlib.sha1(trigger_id.encode(), usedforsecurity=False).hexdigest()


def with_rule(data: bytes, rule: str) -> bytes:
    """``data`` with its empty ``ruleId`` filled in. Inside a key the quotes would be escaped, so
    the place is unmistakable."""
    head, found, tail = data.rpartition(_RULE)
    if not found:
        return data
    return b'%b"ruleId":"%b"%b' % (head, rule.encode(), tail)


def _size(signature: str) -> int:
    return int(signature.split(":", 2)[1]) if signature else 0


def _mime_type(key: str) -> str:
    _, dot, suffix = key.rpartition(".")
    return _mime_type_of(f".{suffix}" if dot and "/" not in suffix else "")


@lru_cache(maxsize=256)
def _mime_type_of(suffix: str) -> str:
    return mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream"
