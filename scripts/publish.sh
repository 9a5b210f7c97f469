#!/bin/sh
# `make publish`: send a message to the broker that `make run` uses. publish.sh DATA; TOPIC and MESSAGE
# are in the environment, where make puts them.
set -eu
data=$1
if [ -z "${TOPIC:-}" ] || [ -z "${MESSAGE:-}" ]; then
    echo "usage: make publish TOPIC=orders MESSAGE='{\"orderId\": 7}'" >&2
    exit 2
fi
if [ -z "${EVENTD_KAFKA:-}" ]; then
    [ -f "$data/kafka" ] || { echo "no broker known: make run, or set EVENTD_KAFKA" >&2; exit 3; }
    EVENTD_KAFKA=$(cat "$data/kafka")
fi
exec .venv/bin/eventd publish "$TOPIC" "$MESSAGE" --bootstrap-servers "$EVENTD_KAFKA"
