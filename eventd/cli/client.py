"""A small signed HTTP client for the daemon; standard library only, so that a command starts fast.

Signature: FC 2016-08-15, "Signature authentication" (HMAC-SHA256 over method, Content-MD5,
Content-Type, Date, ``x-fc-*`` headers and the path).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from eventd.cli.failure import Failure, Refused, Unreachable
from eventd.config import ConfigError
from eventd.local_access import KEY_FILE, read_access_key, read_endpoint

API = "/2016-08-15"
ADMIN = "/eventd/v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def sign(
    method: str, path: str, headers: Mapping[str, str], access_key_id: str, secret: str
) -> str:
    """The ``Authorization`` value for an API call. ``path``: as sent; ``headers``: lower case."""
    own = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name[:5] == "x-fc-")
    text = "\n".join(
        (
            method,
            headers.get("content-md5", ""),
            headers.get("content-type", ""),
            headers["date"],
            own + unquote(path),
        )
    )
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"FC {access_key_id}:{base64.b64encode(digest).decode()}"


class Client:
    """Calls one daemon. One connection per call; nothing stays open between calls.

    Raises from every call: ``Unreachable`` (nobody answers), ``Refused`` (status 400 or above).
    """

    def __init__(
        self, endpoint: str, access_key_id: str, secret: str, *, timeout_s: float = 660.0
    ) -> None:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"endpoint: expected http://HOST:PORT, got {endpoint!r}")
        self.endpoint = f"{parts.scheme}://{parts.netloc}"
        self._scheme = parts.scheme
        self._host = parts.hostname
        try:
            self._port = parts.port
        except ValueError:
            raise Failure(f"endpoint: expected a port number, got {endpoint!r}") from None
        self._key = access_key_id
        self._secret = secret
        self._timeout_s = timeout_s

    def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One request, its whole answer."""
        connection, response = self._send(method, path, body, headers, query)
        try:
            return self._whole(response)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self.endpoint, error) from error
        finally:
            connection.close()

    def json(self, method: str, path: str, content: Any = None, **query: Any) -> Any:
        """Send ``content`` as JSON; the answer's JSON, ``None`` if it has no body."""
        body = b"" if content is None else json.dumps(content).encode()
        headers = {"content-type": "application/json"}
        answer = self.call(method, path, body=body, headers=headers, query=query)
        return answer.json() if answer.body else None

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """The non-empty lines of a streamed answer, as they come, until it ends."""
        connection, response = self._send("GET", path, b"", None, query)
        try:
            if response.status >= 400:
                self._whole(response)
            while line := response.readline():
                if stripped := line.strip():
                    yield stripped
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self.endpoint, error) from error
        finally:
            connection.close()

    def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        query: Mapping[str, Any] | None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        sent.setdefault("date", formatdate(usegmt=True))
        sent.setdefault("content-type", "application/octet-stream")
        sent["authorization"] = sign(method, path, sent, self._key, self._secret)
        given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        target = f"{path}?{urlencode(given)}" if given else path
        connection = self._connection()
        try:
            connection.request(method, target, body=body, headers=sent)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(self.endpoint, error) from error

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _whole(self, response: http.client.HTTPResponse) -> Answer:
        headers = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, headers, response.read())
        if answer.status >= 400:
            raise _refused(answer)
        return answer


def connect(endpoint: str | None, data: Path | None) -> Client:
    """The client for ``endpoint``, else ``EVENTD_ENDPOINT``, else the daemon of DATA, with the key
    of ``EVENTD_ACCESS_KEY_ID`` and ``_SECRET``, else of ``DATA/access-key``.

    DATA is ``data``, else ``EVENTD_DATA``, else ``./data``. Raises ``Failure`` when one is missing.
    """
    directory = data_directory(data)
    url = endpoint or os.environ.get("EVENTD_ENDPOINT")
    key = os.environ.get("EVENTD_ACCESS_KEY_ID", "")
    secret = os.environ.get("EVENTD_ACCESS_KEY_SECRET", "")
    try:
        if not url:
            url = read_endpoint(directory)
        if not (key and secret):
            kept = read_access_key(directory)
            key = kept.get("EVENTD_ACCESS_KEY_ID", "")
            secret = kept.get("EVENTD_ACCESS_KEY_SECRET", "")
    except ConfigError as error:
        raise Failure(str(error)) from None
    if not url:
        raise Failure(
            f"no daemon found in {directory}: start one (eventd serve --data {directory}), "
            "or give --data DIR or --endpoint URL",
            exit_code=Unreachable.exit_code,
        )
    if not key:
        raise Failure(
            f"no access key: set EVENTD_ACCESS_KEY_ID and EVENTD_ACCESS_KEY_SECRET, or give "
            f"--data DIR of the daemon (looked for {directory / KEY_FILE})"
        )
    return Client(url, key, secret)


def data_directory(data: Path | None) -> Path:
    """DATA as a client sees it: given, else ``EVENTD_DATA``, else ``./data``."""
    return (data or Path(os.environ.get("EVENTD_DATA") or "data")).expanduser().absolute()


def function_path(service: str, function: str, qualifier: str = "") -> str:
    """``/2016-08-15/services/S[.Q]/functions/F``, escaped."""
    name = f"{service}.{qualifier}" if qualifier else service
    return f"{API}/services/{quote(name, safe='')}/functions/{quote(function, safe='')}"


def _refused(answer: Answer) -> Refused:
    """The error of an answer, in FC's JSON form where it has it."""
    code, message = f"HTTP {answer.status}", answer.body[:500].decode(errors="replace").strip()
    try:
        content = answer.json()
    except ValueError:
        content = None
    if isinstance(content, dict) and "ErrorCode" in content:
        code, message = str(content["ErrorCode"]), str(content.get("ErrorMessage", ""))
    return Refused(answer.status, code, message, answer.headers.get("x-fc-request-id", ""))
