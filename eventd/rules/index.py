"""``RuleIndex.match``: the triggers that want an event, without visiting the others.

By source, then by the prefixes of the subject that any rule of the source names (one look-up per
distinct length), then by its suffixes likewise, then by event type. The cost grows with the number
of distinct lengths, which the subject's length bounds, and not with the number of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from eventd.plugin import Event, Rule, Trigger

_TYPES_CACHED = 1024


@dataclass(frozen=True, slots=True)
class Hit:
    """A trigger that wants the event, and how to make the bytes for its function."""

    trigger: Trigger[Any]
    payload: Callable[[Event], bytes]


_Leaf = dict[str, tuple[Hit, ...]]  # event type, exact or with a final *
_Suffixes = dict[int, dict[str, _Leaf]]  # length → suffix → leaf
_Prefixes = dict[int, dict[str, _Suffixes]]  # length → prefix → suffixes


def reduce_types(types: Iterable[str]) -> tuple[str, ...]:
    """The same set of event types, so that at most one of them matches any event: what a wildcard
    of the rule covers is dropped. No type at all means every type."""
    wanted = set(types) or {"*"}
    wildcards = [text[:-1] for text in wanted if text.endswith("*")]

    def covered(text: str) -> bool:
        body = text.removesuffix("*")
        return any(body.startswith(stem) and text != stem + "*" for stem in wildcards)

    return tuple(sorted(text for text in wanted if not covered(text)))


class _Source:
    """The rules of one source."""

    __slots__ = ("_types", "_used", "prefixes")

    def __init__(self) -> None:
        self.prefixes: _Prefixes = {}
        self._used: dict[str, int] = {}  # type text → number of rules
        self._types: dict[str, tuple[str, ...]] = {}  # event type → type texts that match it

    def matching_types(self, event_type: str) -> tuple[str, ...]:
        found = self._types.get(event_type)
        if found is None:
            found = tuple(
                text
                for text in self._used
                if text == event_type or (text[-1:] == "*" and event_type.startswith(text[:-1]))
            )
            if len(self._types) >= _TYPES_CACHED:  # types come from outside: stay bounded
                self._types.clear()
            self._types[event_type] = found
        return found

    def add(self, rule: Rule, hit: Hit) -> None:
        by_prefix = self.prefixes.setdefault(len(rule.prefix), {})
        by_suffix = by_prefix.setdefault(rule.prefix, {})
        leaf = by_suffix.setdefault(len(rule.suffix), {}).setdefault(rule.suffix, {})
        for text in reduce_types(rule.types):
            leaf[text] = (*leaf.get(text, ()), hit)
            self._used[text] = self._used.get(text, 0) + 1
        self._types.clear()

    def drop(self, rule: Rule, hit: Hit) -> None:
        by_prefix = self.prefixes[len(rule.prefix)]
        by_suffix = by_prefix[rule.prefix]
        leaves = by_suffix[len(rule.suffix)]
        leaf = leaves[rule.suffix]
        for text in reduce_types(rule.types):
            leaf[text] = tuple(other for other in leaf[text] if other is not hit)
            if not leaf[text]:
                del leaf[text]
            self._used[text] -= 1
            if not self._used[text]:
                del self._used[text]
        self._types.clear()
        if leaf:
            return
        del leaves[rule.suffix]
        if not leaves:
            del by_suffix[len(rule.suffix)]
        if not by_suffix:
            del by_prefix[rule.prefix]
        if not by_prefix:
            del self.prefixes[len(rule.prefix)]


class RuleIndex:
    """The rules in force. Changes take effect for the next ``match``; all on one thread."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._placed: dict[str, tuple[Rule, Hit]] = {}

    def __len__(self) -> int:
        return len(self._placed)

    def put(self, trigger: Trigger[Any], rule: Rule, payload: Callable[[Event], bytes]) -> None:
        """Set the rule of ``trigger``; replaces an earlier one of the same trigger id."""
        self.remove(trigger.id)
        hit = Hit(trigger, payload)
        source = self._sources.get(rule.source)
        if source is None:
            source = self._sources[rule.source] = _Source()
        source.add(rule, hit)
        self._placed[trigger.id] = (rule, hit)

    def remove(self, trigger_id: str) -> None:
        """Forget the trigger's rule; an unknown id is no error."""
        placed = self._placed.pop(trigger_id, None)
        if placed is None:
            return
        rule, hit = placed
        source = self._sources[rule.source]
        source.drop(rule, hit)
        if not source.prefixes:
            del self._sources[rule.source]

    def match(self, source: str, event: Event) -> tuple[Hit, ...]:
        """The hits of the rules of ``source`` that want ``event``, each once, in no set order."""
        node = self._sources.get(source)
        if node is None:
            return ()
        types = node.matching_types(event.type)
        subject = event.subject
        found: tuple[Hit, ...] = ()
        for length, by_prefix in node.prefixes.items():
            by_suffix = by_prefix.get(subject[:length])
            if by_suffix is None:
                continue
            for suffix_length, leaves in by_suffix.items():
                leaf = leaves.get(subject[-suffix_length:] if suffix_length else "")
                if leaf is None:
                    continue
                for text in types:
                    hits = leaf.get(text)
                    if hits is not None:
                        found += hits
        return found
