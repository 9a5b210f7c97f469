from __future__ import annotations

import pytest

from eventd.api.edge import RequestIds
from eventd.api.plan import match_route
from eventd.api.server import Listening, parse_listen
from eventd.errors import InvalidArgument
from eventd.pool.call import CallKind


def test_addresses_are_read() -> None:
    assert parse_listen("127.0.0.1:9980") == ("127.0.0.1", 9980)
    assert parse_listen("[::1]:0") == ("::1", 0)
    assert parse_listen("localhost:80") == ("localhost", 80)
    assert Listening("::1", 80, tls=True).url == "https://[::1]:80"


@pytest.mark.parametrize("listen", ["", "9980", ":9980", "a:", "a:b", "::1:80", "a:70000", "a:-1"])
def test_other_forms_are_refused_by_name(listen: str) -> None:
    with pytest.raises(InvalidArgument, match="listen: expected HOST:PORT"):
        parse_listen(listen)


def test_request_ids_are_unique_and_look_like_uuids() -> None:
    import uuid

    ids = RequestIds()
    found = {ids() for _ in range(1000)}

    assert len(found) == 1000
    assert {len(text) for text in found} == {36}
    assert {uuid.UUID(text).version for text in found} == {4}


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("services/s/functions/f/invocations", (CallKind.EVENT, "s", "LATEST", "f", "")),
        ("services/s.q/functions/f/invocations?a", (CallKind.EVENT, "s", "q", "f", "")),
        ("services/s.q.r/functions/f/invocations", (CallKind.EVENT, "s", "q.r", "f", "")),
        ("proxy/s/f", (CallKind.HTTP, "s", "LATEST", "f", "")),
        ("proxy/s.1/f/a/b?c=/d", (CallKind.HTTP, "s", "1", "f", "/a/b")),
        ("proxy/s/f/../../services", (CallKind.HTTP, "s", "LATEST", "f", "/../../services")),
        ("proxy/s/f%2Fg/", (CallKind.HTTP, "s", "LATEST", "f/g", "/")),
        ("services/s/functions/f/invocations/", None),
        ("services/s/functions/f", None),
        ("services//functions/f/invocations", None),
        ("proxy/s", None),
        ("proxy/s./f/", None),
    ],
)
def test_targets_name_functions(
    target: str, found: tuple[CallKind, str, str, str, str] | None
) -> None:
    route = match_route("/2016-08-15/" + target)

    if found is None:
        assert route is None
    else:
        assert route is not None
        assert found == (
            route.kind, route.service, route.qualifier, route.function, route.rest,
        )  # fmt: skip
