"""Signatures of FC 1.2, with a signer of the real SDK as the judge."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from fc2.auth import Auth

from eventd.api.auth import Authenticator, Credentials
from eventd.clock import Clock
from eventd.errors import (
    AccessDenied,
    EventdError,
    InvalidAccessKeyID,
    InvalidArgument,
    MissingRequiredHeader,
    RequestTimeTooSkewed,
    SignatureNotMatch,
)

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC).timestamp()
PATH = "/2016-08-15/services/demo/functions/hello/invocations"


class Stopped(Clock):
    def time(self) -> float:
        return NOW


def checked(path: str, query: str, headers: dict[str, str], *, with_query: bool = False) -> None:
    authenticator = Authenticator(Credentials("id", "secret"), Stopped())
    for _ in range(2):  # what it remembers from the first time must not matter
        authenticator.verify("POST", path, query, headers, with_query=with_query)


def signed(
    path: str = PATH,
    queries: dict[str, object] | None = None,
    *,
    at: float = NOW,
    key_id: str = "id",
    secret: str = "secret",
    **more: str,
) -> dict[str, str]:
    headers = {"date": formatdate(at, usegmt=True), "content-type": "application/json"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    headers["authorization"] = Auth(key_id, secret).sign_request("POST", path, headers, queries)
    return headers


def test_what_the_sdk_signs_is_accepted() -> None:
    checked(PATH, "", signed())
    checked(PATH, "", signed(x_fc_log_type="Tail", x_fc_account_id="1", content_md5="abc"))


def test_the_worked_example_of_the_documentation() -> None:
    """GET of service ``demo``: the string to sign is given there in full."""
    import base64
    import hashlib
    import hmac

    text = "GET\n\napplication/json\nTue, 24 Nov 2026 03:00:00 GMT\n/2016-08-15/services/demo"
    digest = hmac.new(b"secret", text.encode(), hashlib.sha256).digest()
    headers = {
        "date": "Tue, 24 Nov 2026 03:00:00 GMT",
        "content-type": "application/json",
        "authorization": f"FC id:{base64.b64encode(digest).decode()}",
    }

    Authenticator(Credentials("id", "secret"), Stopped()).verify(
        "GET", "/2016-08-15/services/demo", "", headers, with_query=False
    )


@pytest.mark.parametrize("signed_path", ["/p/a b\u4e2d", "/p/a%20b%E4%B8%AD"])
def test_the_path_may_be_signed_unescaped_or_as_sent(signed_path: str) -> None:
    checked("/p/a%20b%E4%B8%AD", "", signed(signed_path))


@pytest.mark.parametrize(
    ("queries", "sent"),
    [
        ({}, ""),
        ({"b": "2", "a": ["1", "0"]}, "b=2&a=1&a=0"),
        ({"k": "a b", "e": ""}, "k=a+b&e="),
        ({"flag": []}, "flag"),
        ({"q": "\u4e2d&="}, "q=%E4%B8%AD%26%3D"),
    ],
)
def test_the_query_is_signed_on_trigger_paths(queries: dict[str, object], sent: str) -> None:
    checked("/p", sent, signed("/p", queries), with_query=True)


def test_15_minutes_of_skew_are_allowed_both_ways() -> None:
    for skew in (-900, 900):
        checked(PATH, "", signed(at=NOW + skew))
    for skew in (-901, 901):
        with pytest.raises(RequestTimeTooSkewed):
            checked(PATH, "", signed(at=NOW + skew))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"authorization": ""},
            MissingRequiredHeader,
            "required HTTP header Authorization was not specified",
        ),
        ({"date": ""}, MissingRequiredHeader, "required HTTP header Date was not specified"),
        ({"authorization": "Bearer x"}, InvalidArgument, "allowed: FC"),
        ({"authorization": "FC other:x"}, InvalidAccessKeyID, "invalid access key ID 'other'"),
        (
            {"authorization": "FC id:AAAA"},
            SignatureNotMatch,
            (
                "The request signature we calculated does not match the signature you provided. "
                "Check your access key and signing method"
            ),
        ),
        ({"authorization": "FC id:\u4e2d"}, SignatureNotMatch, "does not match"),
        ({"content-type": "text/plain"}, SignatureNotMatch, "does not match"),
        ({"x-fc-log-type": "Tail"}, SignatureNotMatch, "does not match"),
        ({"x-fc-security-token": "t"}, AccessDenied, "security token"),
    ],
)
def test_what_is_wrong_is_said_in_fcs_words(
    change: dict[str, str], error: type[EventdError], text: str
) -> None:
    headers = {name: value for name, value in (signed() | change).items() if value}
    with pytest.raises(error) as raised:
        checked(PATH, "", headers)

    assert text in str(raised.value)


def test_another_secret_does_not_pass() -> None:
    with pytest.raises(SignatureNotMatch):
        checked(PATH, "", signed(secret="other"))


def test_a_signed_date_that_is_none_is_an_invalid_argument() -> None:
    headers = {"date": "yesterday"}
    headers["authorization"] = Auth("id", "secret").sign_request("POST", PATH, headers)
    with pytest.raises(InvalidArgument, match="Date doesn't match expected format"):
        checked(PATH, "", headers)


def test_the_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Credentials("id", "hidden"))
