"""Pages of a listing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.api.pagination import PageQuery, page
from eventd.errors import InvalidArgument

NAMES = st.lists(st.text(alphabet="abAB_", min_size=1, max_size=4), unique=True).map(sorted)


def pages(names: list[str], **query: str) -> list[list[str]]:
    found: list[list[str]] = []
    token = ""
    while True:
        one, token = page(names, str, PageQuery.of({**query, "nextToken": token}))
        found.append(one)
        if not token:
            return found


@given(NAMES, st.integers(1, 5), st.text(alphabet="abAB_", max_size=2), st.text(alphabet="abAB_"))
def test_the_pages_together_are_the_listing(
    names: list[str], limit: int, prefix: str, start: str
) -> None:
    expected = [name for name in names if name.startswith(prefix) and name >= start]

    found = pages(names, limit=str(limit), prefix=prefix, startKey=start)

    assert [name for one in found for name in one] == expected
    assert all(len(one) == limit for one in found[:-1])
    assert found[-1] or not expected, "no page is empty but that of an empty listing"


def test_ten_items_by_three_take_four_calls() -> None:
    assert [len(one) for one in pages([f"s{i}" for i in range(10)], limit="3")] == [3, 3, 3, 1]


def test_the_start_key_need_not_exist() -> None:
    assert page(["p_abc", "p_bcd", "p_c"], str, PageQuery(start_key="p_b"))[0] == ["p_bcd", "p_c"]


def test_a_token_goes_before_the_start_key_and_the_prefix_still_filters() -> None:
    query = PageQuery(next_token="b", start_key="c", prefix="bb")

    assert page(["a", "b", "bb", "c"], str, query) == (["bb"], "")


def test_empty_values_are_absent_ones() -> None:
    query = PageQuery.of({"limit": "", "prefix": "", "startKey": "", "nextToken": ""})

    assert query == PageQuery(limit=20)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten", "1.5", "²", "9" * 30])
def test_a_limit_out_of_range_is_refused(limit: str) -> None:
    with pytest.raises(InvalidArgument, match=r"Limit is set to an invalid value \(allowed: 1 - "):
        PageQuery.of({"limit": limit})
