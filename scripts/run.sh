#!/bin/bash
# `make run`: a broker if EVENTD_KAFKA names none, the daemon, the demonstration; until Ctrl-C.
#   run.sh DATA LISTEN
set -euo pipefail
data=$1 listen=$2
bin=.venv/bin
broker='' daemon=''

stop() { # stop PID: SIGTERM, and wait until it is gone
    if [ -n "$1" ] && kill -TERM "$1" 2>/dev/null; then
        wait "$1" || true
    fi
}

finish() {
    local code=$?
    set +e # the terminal may be gone, and then nothing can be printed; stop them all the same
    trap '' INT TERM HUP PIPE
    if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
        echo "stopping: the daemon lets running requests end"
    fi
    stop "$daemon"
    stop "$broker"
    exit "$code"
}
trap finish EXIT
trap 'exit 0' INT TERM HUP

mkdir -p "$data"
if [ -z "${EVENTD_KAFKA:-}" ]; then
    port=${KAFKA_PORT:-$($bin/python scripts/free_port.py 19092)}
    # In sessions of their own: Ctrl-C reaches this script, and it stops them in order.
    setsid scripts/dev-broker.sh "$port" >"$data/broker-$port.log" 2>&1 &
    broker=$!
    EVENTD_KAFKA=127.0.0.1:$port
    echo "development broker in memory at $EVENTD_KAFKA, its log: $data/broker-$port.log"
fi
export EVENTD_KAFKA
$bin/python scripts/wait_port.py "${EVENTD_KAFKA%%,*}" 20

before=$(stat -c '%i %y' "$data/endpoint" 2>/dev/null || true) # of an earlier daemon, or none
setsid $bin/eventd serve --data "$data" --listen "$listen" &
daemon=$!
$bin/python scripts/wait_ready.py "$data" "$daemon" 60 "$before"
echo "$EVENTD_KAFKA" >"$data/kafka" # for make publish
$bin/eventd deploy-demo --data "$data" --kafka "$EVENTD_KAFKA"
echo "  publish, in short     make publish TOPIC=orders MESSAGE='{\"orderId\": 7}'"
echo "  stop                  Ctrl-C"
wait "$daemon"
