"""``RuleIndex.match``: the triggers that want an event, without visiting the others.

By source, then by the prefixes of the subject that any rule of the source names (one look-up per
distinct length), then by suffix and event type: a short list while few rules share the prefix
(at 100,000 rules a miss of the processor's cache costs more than a comparison), a table of
suffixes beyond that. The cost grows with the number of distinct lengths, which the subject's
length bounds, and not with the number of rules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from eventd.plugin import Event, Rule, Trigger

_TYPES_CACHED = 1024


@dataclass(frozen=True, slots=True)
class Hit:
    """A trigger that wants the event, and how to make the bytes for its function."""

    trigger: Trigger[Any]
    payload: Callable[[Event], bytes]


_FEW = 8
_Few = tuple[Any, ...]  # flat: suffix, event type (exact or with a final *), (hit,), suffix, ...
_Leaf = dict[str, tuple[Hit, ...]]  # event type → hits
_Many = dict[int, dict[str, _Leaf]]  # length → suffix → leaf
_Node = _Few | _Many


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

    __slots__ = ("_types", "_used", "last", "last_subject", "last_type", "prefixes")

    def __init__(self) -> None:
        self.prefixes: dict[int, dict[str, _Node]] = {}  # length → prefix → node
        self._used: dict[str, int] = {}  # type text → number of rules
        self._types: dict[str, tuple[str, ...]] = {}  # event type → type texts that match it
        # the last answer: the events of a topic have one subject and one type, the same objects
        self.last_subject: str | None = None
        self.last_type = ""
        self.last: tuple[Hit, ...] = ()

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
        node = by_prefix.get(rule.prefix, ())
        suffix = sys.intern(rule.suffix)  # equal texts are one object: found by identity
        for kind in map(sys.intern, reduce_types(rule.types)):
            if isinstance(node, tuple) and len(node) < 3 * _FEW:
                node = (*node, suffix, kind, (hit,))
            else:
                if isinstance(node, tuple):
                    node = _table(node)
                leaf = node.setdefault(len(suffix), {}).setdefault(suffix, {})
                leaf[kind] = (*leaf.get(kind, ()), hit)
            self._used[kind] = self._used.get(kind, 0) + 1
        by_prefix[rule.prefix] = node
        self._forget()

    def drop(self, rule: Rule, hit: Hit) -> None:
        by_prefix = self.prefixes[len(rule.prefix)]
        node = _without(by_prefix[rule.prefix], rule.suffix, hit)
        if node:
            by_prefix[rule.prefix] = node
        else:
            del by_prefix[rule.prefix]
            if not by_prefix:
                del self.prefixes[len(rule.prefix)]
        for kind in reduce_types(rule.types):
            self._used[kind] -= 1
            if not self._used[kind]:
                del self._used[kind]
        self._forget()

    def _forget(self) -> None:
        self._types.clear()
        self.last_subject = None


def _triples(few: _Few) -> Iterator[tuple[str, str, tuple[Hit]]]:
    flat = iter(few)
    return zip(flat, flat, flat, strict=True)


def _few_hits(few: _Few, types: tuple[str, ...], subject: str) -> tuple[Hit, ...]:
    found: tuple[Hit, ...] = ()
    flat = iter(few)
    for suffix, kind, hits in zip(flat, flat, flat):  # noqa: B905 - a multiple of 3
        if kind in types and subject.endswith(suffix):
            found += hits
    return found


def _table(few: _Few) -> _Many:
    table: _Many = {}
    for suffix, kind, hits in _triples(few):
        leaf = table.setdefault(len(suffix), {}).setdefault(suffix, {})
        leaf[kind] = (*leaf.get(kind, ()), *hits)
    return table


def _without(node: _Node, suffix: str, hit: Hit) -> _Node:
    """The node without what ``hit`` put into it; empty when nothing is left."""
    if isinstance(node, tuple):
        return tuple(
            part for triple in _triples(node) if triple[2][0] is not hit for part in triple
        )
    leaves = node[len(suffix)]
    leaf = {
        kind: kept
        for kind, hits in leaves[suffix].items()
        if (kept := tuple(other for other in hits if other is not hit))
    }
    if leaf:
        leaves[suffix] = leaf
        return node
    del leaves[suffix]
    if not leaves:
        del node[len(suffix)]
    return node


class RuleIndex:
    """The rules in force. Changes take effect for the next ``match``; all on one thread."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._placed: dict[str, tuple[Rule, Hit]] = {}

    def __len__(self) -> int:
        return len(self._placed)

    def __contains__(self, source: str) -> bool:
        """Whether any rule asks for events of ``source``."""
        return source in self._sources

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
        subject, event_type = event.subject, event.type
        if subject is node.last_subject and event_type is node.last_type:
            return node.last
        types = node.matching_types(event_type)
        found: tuple[Hit, ...] = ()
        for length, by_prefix in node.prefixes.items():
            rules = by_prefix.get(subject[:length])
            if rules is None:
                continue
            if isinstance(rules, tuple):
                if len(rules) == 3:  # one rule, the common case
                    suffix, kind, hits = rules
                    if kind in types and subject.endswith(suffix):
                        found = found + hits if found else hits
                else:
                    found += _few_hits(rules, types, subject)
                continue
            for suffix_length, leaves in rules.items():
                leaf = leaves.get(subject[-suffix_length:] if suffix_length else "")
                if leaf is not None:
                    for kind in types:
                        found += leaf.get(kind, ())
        node.last_subject, node.last_type, node.last = subject, event_type, found
        return found
