"""Runs when lines are added to a watched log file; counts those that speak of an error."""

import json


def texts(value):
    """Every text inside the event's lines, however they are nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def handler(event, context):
    batch = json.loads(event)
    found = [text for text in texts(batch.get("logs", [])) if "ERROR" in text]
    for text in found:
        print(f"error line: {text}")
    print(f"{len(found)} error lines")
    return json.dumps({"errors": len(found)})
