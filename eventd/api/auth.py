"""FC's request signatures: who calls, and whether the call is what the caller signed.

Source: FC 2016-08-15, "Common parameters"; the forms that ``aliyun-fc2`` and ``@alicloud/fc2``
really send (``fc/1-wire.md`` 1.2).
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, unquote_plus

from eventd.clock import Clock
from eventd.errors import (
    AccessDenied,
    InvalidAccessKeyID,
    InvalidArgument,
    MissingRequiredHeader,
    RequestTimeTooSkewed,
    SignatureNotMatch,
)

MAX_SKEW_S = 900.0
"""How far ``Date`` may be from the own clock, both ways."""

_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one key pair of this installation."""

    access_key_id: str
    access_key_secret: str = field(repr=False)


class Authenticator:
    """Checks ``Authorization: FC id:signature``; no state but what it remembers to be quick."""

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._id = credentials.access_key_id
        self._secret = credentials.access_key_secret.encode()
        self._clock = clock
        self._dates: dict[str, float] = {}
        self._signatures: dict[str, bytes] = {}

    def verify(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Mapping[str, str],
        *,
        with_query: bool,
    ) -> None:
        """Return if the request carries a valid signature.

        Args:
            raw_path: as sent, still escaped, without the query.
            raw_query: as sent, without ``?``.
            headers: names in lower case, one value each.
            with_query: the form of HTTP triggers, which signs the query too.

        Raises:
            MissingRequiredHeader: no ``Authorization`` or no ``Date``.
            InvalidArgument: one of them has another form.
            InvalidAccessKeyID, SignatureNotMatch, RequestTimeTooSkewed.
            AccessDenied: a security token that nobody here issued.
        """
        self.verify_until(method, raw_path, raw_query, headers, with_query=with_query)

    def verify_until(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Mapping[str, str],
        *,
        with_query: bool,
    ) -> float:
        """``verify``, and give the wall clock second up to which the same request stays valid."""
        given, date = _credentials(headers), _required(headers, "date", "Date")
        if headers.get("x-fc-security-token"):
            raise AccessDenied("the security token is not known here")
        key_id, _, signature = given.partition(":")
        if not hmac.compare_digest(key_id.encode(), self._id.encode()):
            raise InvalidAccessKeyID(f"invalid access key ID '{key_id}'")
        head = _signed_head(method, headers, date)
        if with_query or "%" in raw_path:
            resources = _resources(raw_path, raw_query, with_query=with_query)
        else:
            resources = [raw_path]
        matches = False
        for resource in resources:
            matches |= hmac.compare_digest(self._sign(head + resource), signature.encode())
        if not matches:
            raise SignatureNotMatch(
                "The request signature we calculated does not match the signature you provided. "
                "Check your access key and signing method"
            )
        sent = self._seconds(date)
        if abs(self._clock.time() - sent) > MAX_SKEW_S:
            raise RequestTimeTooSkewed(
                f"the difference between the request time '{date}' and the server's time is more "
                f"than {MAX_SKEW_S / 60:.0f} minutes"
            )
        return sent + MAX_SKEW_S

    def _sign(self, text: str) -> bytes:
        """The signature of ``text``, remembered: calls of one function within a second of a
        client have the same string to sign."""
        found = self._signatures.get(text)
        if found is None:
            digest = hmac.digest(self._secret, text.encode("utf-8", "surrogateescape"), "sha256")
            found = b2a_base64(digest, newline=False)
            if len(self._signatures) >= _REMEMBERED:
                self._signatures.clear()
            self._signatures[text] = found
        return found

    def _seconds(self, date: str) -> float:
        found = self._dates.get(date)
        if found is None:
            try:
                found = parsedate_to_datetime(date).timestamp()
            except (ValueError, OverflowError) as error:
                raise InvalidArgument(
                    "Date doesn't match expected format "
                    f"(allowed: Tue, 24 Nov 2026 03:00:00 GMT, actual: '{date}')"
                ) from error
            if len(self._dates) >= _REMEMBERED:
                self._dates.clear()
            self._dates[date] = found
        return found


def _required(headers: Mapping[str, str], name: str, shown: str) -> str:
    value = headers.get(name)
    if not value:
        raise MissingRequiredHeader(f"required HTTP header {shown} was not specified")
    return value


def _credentials(headers: Mapping[str, str]) -> str:
    """What stands after ``FC``: ``id:signature``."""
    scheme, _, given = _required(headers, "authorization", "Authorization").partition(" ")
    if scheme != "FC" or ":" not in given:
        raise InvalidArgument(
            "Authorization doesn't match expected format (allowed: FC {accessKeyId}:{signature})"
        )
    return given


def _signed_head(method: str, headers: Mapping[str, str], date: str) -> str:
    own = ""
    for name in sorted(name for name in headers if name.startswith("x-fc-")):
        own += f"{name}:{headers[name]}\n"
    md5, content_type = headers.get("content-md5", ""), headers.get("content-type", "")
    return f"{method.upper()}\n{md5}\n{content_type}\n{date}\n{own}"


def _resources(raw_path: str, raw_query: str, *, with_query: bool) -> Iterable[str]:
    """The canonical resource in each form that a known client signs: the path unescaped, or as
    sent (NodeSDK); ``key=`` with its ``=`` (PySDK) or without (the documented form)."""
    path = unquote(raw_path, errors="surrogateescape")
    paths = [path] if path == raw_path else [path, raw_path]
    if not with_query:
        yield from paths
        return
    items = [unquote_plus(item, errors="surrogateescape") for item in raw_query.split("&") if item]
    queries = ["\n".join(sorted(items))]
    if any(item.endswith("=") for item in items):
        bare = (
            item[:-1] if item.endswith("=") and item.count("=") == 1 else item for item in items
        )
        queries.append("\n".join(sorted(bare)))
    for found in paths:
        for query in queries:
            yield f"{found}\n{query}"
