"""The client's signature against the official SDK's."""

from __future__ import annotations

from urllib.parse import quote, unquote

from fc2 import auth
from hypothesis import given
from hypothesis import strategies as st

from eventd.cli.client import sign

TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=20)


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.text(min_size=1, max_size=20),
    st.dictionaries(st.sampled_from(["x-fc-trace-id", "x-fc-log-type", "x-fc-a"]), TEXT),
    TEXT,
)
def test_a_request_is_signed_as_the_official_sdk_signs_it(
    method: str, name: str, extra: dict[str, str], content_type: str
) -> None:
    path = f"/2016-08-15/services/{quote(name, safe='')}"
    headers = {"date": "Tue, 24 Nov 2026 03:00:00 GMT", "content-type": content_type, **extra}

    ours = sign(method, path, headers, "LTAIid", "secret")

    assert ours == auth.Auth("LTAIid", "secret", "").sign_request(method, unquote(path), headers)
