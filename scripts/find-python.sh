#!/bin/sh
# Print a Python from 3.11 on, as a command; the pinned versions are tested on the first.
for python in python3.11 python3.12 python3.13 python3 python3.14; do
    if command -v "$python" >/dev/null 2>&1 &&
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$python"
        exit 0
    fi
done
echo "eventd needs Python 3.11 or newer; on Debian 12: apt-get install python3 python3-venv" >&2
echo python3-of-3.11-or-newer-not-found
