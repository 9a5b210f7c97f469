"""Runs for each picture that falls into the bucket ``pictures``."""

import json


def handler(event, context):
    seen = []
    for one in json.loads(event)["events"]:
        picture = one["oss"]["object"]
        seen.append(picture["key"])
        print(f"{one['eventName']}: {picture['key']}, {picture['size']} bytes")
    return json.dumps({"pictures": seen})
