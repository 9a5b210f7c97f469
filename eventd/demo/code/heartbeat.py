"""Runs each minute."""

import json


def handler(event, context):
    if not event:
        print("called by hand, not by the timer")
        return "no tick"
    tick = json.loads(event)
    print(f"tick of {tick['triggerName']} at {tick['triggerTime']}")
    return tick["triggerTime"]
