"""The index against a naive oracle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventd.plugin import Event, Rule, Trigger, TriggerConfig
from eventd.rules.index import RuleIndex, reduce_types


def trigger(number: int) -> Trigger[TriggerConfig]:
    return Trigger(
        f"id{number}", "s", "f", f"t{number}", "LATEST", None, TriggerConfig(), {}, "", ""
    )


def event(kind: str, subject: str) -> Event:
    return Event("1", "src", kind, subject, "", b"")


def wants(rule: Rule, source: str, happened: Event) -> bool:
    """The slow oracle."""
    types = not rule.types or any(
        happened.type == text or (text.endswith("*") and happened.type.startswith(text[:-1]))
        for text in rule.types
    )
    return (
        rule.source == source
        and types
        and happened.subject.startswith(rule.prefix)
        and happened.subject.endswith(rule.suffix)
    )


short = st.text("ab/", max_size=4)
kinds = st.text("ab:", min_size=1, max_size=4)
patterns = st.builds(lambda text, star: text + star, st.text("ab:", max_size=3), st.just("*"))
rules = st.builds(
    Rule,
    source=st.sampled_from(["x", "y"]),
    types=st.lists(st.one_of(kinds, patterns), max_size=3).map(tuple),
    prefix=short,
    suffix=short,
)


@given(
    steps=st.lists(st.tuples(st.integers(0, 15), st.one_of(st.none(), rules)), max_size=60),
    events=st.lists(st.tuples(kinds, short), min_size=1, max_size=8),
)
def test_the_index_finds_what_a_scan_of_all_rules_finds(
    steps: list[tuple[int, Rule | None]], events: list[tuple[str, str]]
) -> None:
    index = RuleIndex()
    in_force: dict[str, Rule] = {}

    for number, rule in steps:
        if rule is None:
            index.remove(f"id{number}")
            in_force.pop(f"id{number}", None)
        else:
            index.put(trigger(number), rule, lambda happened: happened.data)
            in_force[f"id{number}"] = rule
        for kind, subject in events:
            happened = event(kind, subject)
            for source in ("x", "y", "z"):
                found = [hit.trigger.id for hit in index.match(source, happened)]
                expected = [name for name, r in in_force.items() if wants(r, source, happened)]
                assert sorted(found) == sorted(expected)
    assert len(index) == len(in_force)

    for name in list(in_force):
        index.remove(name)
    assert index._sources == {}  # nothing of a removed rule stays behind


@given(st.lists(st.one_of(kinds, patterns), max_size=5), kinds)
def test_reduced_types_match_the_same_events_at_most_once(types: list[str], kind: str) -> None:
    def matches(text: str) -> bool:
        return kind == text or (text.endswith("*") and kind.startswith(text[:-1]))

    hits = sum(matches(text) for text in reduce_types(types))

    assert hits == int(not types or any(matches(text) for text in types))


def test_a_suffix_longer_than_the_subject_does_not_match() -> None:
    index = RuleIndex()
    index.put(trigger(1), Rule("x", suffix="/very/long.jpg"), lambda happened: happened.data)

    assert index.match("x", event("k", ".jpg")) == ()


def test_a_changed_rule_replaces_the_old_one() -> None:
    index = RuleIndex()
    index.put(trigger(1), Rule("x", prefix="in/"), lambda happened: happened.data)
    index.put(trigger(1), Rule("x", prefix="out/"), lambda happened: happened.data)

    assert index.match("x", event("k", "in/a")) == ()
    assert [hit.trigger.id for hit in index.match("x", event("k", "out/a"))] == ["id1"]


def test_a_prefix_with_many_rules_gives_each_its_own_and_forgets_them() -> None:
    index = RuleIndex()
    for number in range(50):
        rule = Rule("x", ("k*",) if number % 2 else ("k1",), "in/", f".{number % 5}")
        index.put(trigger(number), rule, lambda happened: happened.data)

    found = {hit.trigger.id for hit in index.match("x", event("k2", "in/a.3"))}
    assert found == {f"id{number}" for number in range(50) if number % 5 == 3 and number % 2}

    for number in range(50):
        index.remove(f"id{number}")
        left = {hit.trigger.id for hit in index.match("x", event("k1", "in/a.3"))}
        assert left == {f"id{n}" for n in range(number + 1, 50) if n % 5 == 3}
    assert index._sources == {}


def test_the_same_event_again_sees_a_rule_that_came_or_went_meanwhile() -> None:
    index = RuleIndex()
    event = Event("1", "s", "kind", "subject", "", b"")

    def trigger(name: str) -> Trigger[TriggerConfig]:
        return Trigger(name, "s", "f", name, "LATEST", None, TriggerConfig(), {}, "", "")

    def matching() -> list[str]:
        return sorted(hit.trigger.id for hit in index.match("src", event))

    index.put(trigger("a"), Rule("src"), lambda event: b"")
    assert matching() == matching() == ["a"]
    index.put(trigger("b"), Rule("src", types=("kind",)), lambda event: b"")
    assert matching() == matching() == ["a", "b"]
    index.remove("a")
    assert matching() == ["b"]
