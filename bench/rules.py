"""Rule matching at 10 to 100,000 rules: events per second, and the ratio to 10 rules.

python bench/rules.py [ROUNDS=5]
"""

from __future__ import annotations

import random
import statistics
import sys
import time

from eventd.plugin import Event, Rule, Trigger, TriggerConfig
from eventd.rules.index import RuleIndex

SUFFIXES = (".jpg", ".png", ".csv", ".json", ".log", ".parquet", "", ".gz")
EVENTS = 2000


def make_rules(count: int, rnd: random.Random) -> list[Rule]:
    return [
        Rule(
            source=f"oss:b{i % 20}",
            types=("oss:ObjectCreated:" + ("*" if i % 3 else "PutObject"),),
            prefix=f"data/{rnd.randrange(max(10, count // 2)):06d}/" + ("" if i % 2 else "in/"),
            suffix=SUFFIXES[i % 8],
        )
        for i in range(count)
    ]


def build(rules: list[Rule]) -> RuleIndex:
    index = RuleIndex()
    for number, rule in enumerate(rules):
        trigger = Trigger(
            f"id{number}", "s", "f", f"t{number}", "LATEST", None, TriggerConfig(), {}, "", ""
        )
        index.put(trigger, rule, lambda event: event.data)
    return index


def make_events(rules: list[Rule], rnd: random.Random) -> list[tuple[str, Event]]:
    made = []
    for number in range(EVENTS):
        rule = rnd.choice(rules)
        subject = f"{rule.prefix}x/file{rnd.randrange(1000)}{rule.suffix}"
        event = Event(str(number), "acs.oss", "oss:ObjectCreated:PutObject", subject, "", b"")
        made.append((rule.source, event))
    return made


def rate(index: RuleIndex, events: list[tuple[str, Event]]) -> float:
    match = index.match
    start = time.process_time()
    for source, event in events:
        match(source, event)
    return len(events) / (time.process_time() - start)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rnd = random.Random(1)
    cases = {}
    for count in (10, 1000, 100_000):
        rules = make_rules(count, rnd)
        cases[count] = (build(rules), make_events(rules, rnd))
    rates: dict[int, list[float]] = {count: [] for count in cases}
    for _ in range(rounds):  # interleaved, so that all see the same noise
        for count, (index, events) in cases.items():
            rates[count].append(rate(index, events))
    small = statistics.median(rates[10])
    print("| rules | events/s | time per event, ratio to 10 rules |")
    print("|---|---|---|")
    for count, seen in rates.items():
        median = statistics.median(seen)
        print(f"| {count:,} | {median:,.0f} | {small / median:.2f} |")


if __name__ == "__main__":
    main()
