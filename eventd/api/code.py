"""Code packages on their way in (inline or from a bucket) and out (a signed download address)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from eventd.api.body import decode_base64
from eventd.api.code_body import CodeBody
from eventd.api.errors import REQUEST_ID
from eventd.api.schemas.function import Code
from eventd.api.state import ControlState
from eventd.errors import AccessDenied, EventdError, InvalidArgument
from eventd.model.resources import Function
from eventd.plugin import SourceSettings
from eventd.store.archive import inspect
from eventd.store.checksum import crc64

log = logging.getLogger(__name__)

CHECKSUM_HEADER = "X-Fc-Code-Checksum"

_PATIENCE_S = 30.0
_MIN_RATE_BYTES_S = 64 << 10
_PART_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is in ``Blobs``."""

    digest: str
    checksum: str
    size: int


async def store_code(
    state: ControlState, code: Code, body: CodeBody, expected_checksum: str | None
) -> Package:
    """Check the package and put it into ``Blobs``; all heavy work in threads.

    Raises ``InvalidArgument``: bad base64, no such object, a refused package, or a checksum other
    than the ``X-Fc-Code-Checksum`` that the caller sent.
    """
    async with state.packing:
        data, checksum = await asyncio.to_thread(_load, state, code, body)
        if expected_checksum and expected_checksum != checksum:
            raise InvalidArgument(
                f"{CHECKSUM_HEADER} is set to an invalid value "
                f"(allowed: {checksum}, actual: '{expected_checksum[:50]}')"
            )
        return Package(await state.blobs.put(data), checksum, len(data))


def _load(state: ControlState, code: Code, body: CodeBody) -> tuple[bytes, str]:
    if code.zip_file:
        data = decode_base64(body.zip_text(code), field="Code.zipFile")
    else:
        data = _read_object(state, code.oss_bucket_name or "", code.oss_object_name or "")
    inspect(data, max_unpacked_bytes=state.limits.unpacked_bytes)
    return data, str(crc64(data))


def _read_object(state: ControlState, bucket: str, name: str) -> bytes:
    root = bucket_directory(state.settings, bucket)
    missing = InvalidArgument(f"Code: object '{name}' of bucket '{bucket}' does not exist")
    try:
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root.resolve()):
            raise missing
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise missing
            if found.st_size > state.limits.object_bytes:
                raise InvalidArgument(
                    f"Code: object '{name}' has {found.st_size} bytes "
                    f"(max: {state.limits.object_bytes})"
                )
            return file.read(state.limits.object_bytes + 1)
    except (OSError, ValueError) as error:
        log.info("code object %s of bucket %s is not readable: %s", name, bucket, error)
        raise missing from None


def bucket_directory(settings: SourceSettings, bucket: str) -> Path:
    """Where a bucket's objects are: configured, or below ``DATA/buckets``.

    Raises ``InvalidArgument`` for a bucket that does not exist.
    """
    configured = settings.buckets.get(bucket)
    if configured is not None:
        return configured
    path = settings.data_dir / "buckets" / bucket
    if bucket in ("", ".", "..") or "/" in bucket or "\x00" in bucket or not path.is_dir():
        raise InvalidArgument(f"Code: bucket '{bucket[:200]}' does not exist")
    return path


class CodeDownloads:
    """Download addresses that need no FC signature: the path carries an expiry and an HMAC.

    They end with the process, whose random secret signs them.
    """

    def __init__(self, state: ControlState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        path = "/2016-08-15/code/{digest}/{expires}/{token}"
        return [web.get(path, self.download, allow_head=False)]

    def url(self, request: web.Request, function: Function) -> str:
        """An absolute address of the function's package, good for ``limits.code_url_s``."""
        expires = str(int(self._state.clock.time()) + self._state.limits.code_url_s)
        token = self._token(function.code_digest, expires)
        path = f"/2016-08-15/code/{function.code_digest}/{expires}/{token}"
        return f"{request.scheme}://{_authority(request)}{path}"

    async def download(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        expires = request.match_info["expires"]
        good = self._token(digest, expires)
        if not hmac.compare_digest(good.encode(), request.match_info["token"].encode()):
            raise AccessDenied("the download address is not valid")
        if int(expires) < self._state.clock.time():
            raise AccessDenied("the download address has expired")
        try:
            data = await self._state.blobs.get(digest)
        except (KeyError, ValueError):
            log.exception("package %s cannot be read", digest)
            raise EventdError("the package cannot be read") from None
        return await _send(request, data)

    def _token(self, digest: str, expires: str) -> str:
        message = f"{digest}/{expires}".encode()
        return hmac.new(self._state.url_secret, message, hashlib.sha256).hexdigest()


async def _send(request: web.Request, data: bytes) -> web.StreamResponse:
    """Send a package in parts, as the client takes them; one that takes less than 64 KiB/s is
    cut off after 30 s."""
    response = web.StreamResponse(headers={"X-Fc-Request-Id": request[REQUEST_ID]})
    response.content_type = "application/zip"
    response.content_length = len(data)
    await response.prepare(request)
    view = memoryview(data)
    try:
        async with asyncio.timeout(_PATIENCE_S + len(data) / _MIN_RATE_BYTES_S):
            for start in range(0, len(view), _PART_BYTES):
                await response.write(view[start : start + _PART_BYTES])
            await response.write_eof()
    except TimeoutError:
        log.info("the download of a package is cut off: the client is too slow")
        if request.transport is not None:
            request.transport.abort()
    return response


def _authority(request: web.Request) -> str:
    """Host and port as the client reaches us. The Node.js SDK sends its ``Host`` without the port,
    so a missing one is filled in from the socket."""
    host = request.host
    if ":" in host.rpartition("]")[2]:
        return host
    transport = request.transport
    name = transport.get_extra_info("sockname") if transport is not None else None
    usual = 443 if request.scheme == "https" else 80
    if isinstance(name, tuple) and name[1] != usual:
        return f"{host}:{name[1]}"
    return host
