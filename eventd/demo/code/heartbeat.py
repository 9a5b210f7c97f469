"""Runs each minute."""

import json


def handler(event, context):
    tick = json.loads(event)
    print(f"tick of {tick['triggerName']} at {tick['triggerTime']}")
    return tick["triggerTime"]
