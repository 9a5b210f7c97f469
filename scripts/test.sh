#!/bin/bash
# `make test`: checks, then all tests; the Kafka tests on the development broker and, where Maven
# Central is reached, on Apache Kafka, too. EVENTD_TEST_KAFKA=HOST:PORT names one that runs already.
set -euo pipefail
brokers="the development broker (Tansu, in memory)"
kafka='' work=''

finish() {
    local code=$?
    trap '' INT TERM
    if [ -n "$kafka" ]; then
        kill -TERM "$kafka" 2>/dev/null || true
        wait "$kafka" 2>/dev/null || true
        rm -rf "$work"
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

scripts/check.sh
.venv/bin/python -m check_jsonschema --builtin-schema vendor.compose-spec compose.yaml

if [ -n "${EVENTD_TEST_KAFKA:-}" ]; then
    brokers="$brokers and $EVENTD_TEST_KAFKA (EVENTD_TEST_KAFKA)"
elif scripts/apache-kafka.sh fetch; then
    work=$(mktemp -d)
    port=$(.venv/bin/python scripts/free_port.py 0)
    scripts/apache-kafka.sh run "$port" "$work" >"$work/server.log" 2>&1 &
    kafka=$!
    if ! .venv/bin/python scripts/wait_port.py "127.0.0.1:$port" 60; then
        tail -20 "$work/server.log"
        exit 1
    fi
    export EVENTD_TEST_KAFKA=127.0.0.1:$port
    brokers="$brokers and Apache Kafka $(scripts/apache-kafka.sh version)"
else
    brokers="$brokers; not against Apache Kafka, for the reason above"
fi
echo "The Kafka tests run against $brokers."
.venv/bin/pytest -n "${PYTEST_WORKERS:-2}" "$@"
echo "The Kafka tests ran against $brokers."
