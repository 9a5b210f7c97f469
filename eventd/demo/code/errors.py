"""Runs when lines are added to a watched log file; counts those that speak of an error."""

import json


def handler(event, context):
    found = [line for line in json.loads(event)["lines"] if "ERROR" in line]
    for line in found:
        print(f"error line: {line}")
    return json.dumps({"errors": len(found)})
