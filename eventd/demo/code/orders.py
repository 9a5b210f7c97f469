"""Runs for each message on the Kafka topic ``orders``."""

import json


def handler(event, context):
    for message in json.loads(event):
        record = message["data"]
        place = f"{record['topic']}-{record['partition']}@{record['offset']}"
        print(f"order at {place}: {record['value']}")
    return "done"
