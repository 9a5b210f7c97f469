#!/bin/bash
# `make bench`: every number beside its reference, in turn; prints them and writes
# docs/benchmarks.md. Takes about ten minutes; run nothing else meanwhile.
set -euo pipefail
{
    echo "# Benchmarks"
    echo
    echo "Printed by \`make bench\` on $(date -u +%F): $(nproc) processors," \
        "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)," \
        "$(.venv/bin/python --version). Only ratios within one run count; machines differ."
    for name in warm_http slow_reader cold_start memory kafka files rules; do
        echo
        .venv/bin/python "bench/$name.py"
    done
} | tee docs/benchmarks.md.new
mv docs/benchmarks.md.new docs/benchmarks.md
