#!/bin/sh
# Install missing Debian packages when root; else name them.
#   debian.sh venv PYTHON   what `python -m venv` needs
#   debian.sh tests         what the tests need
#   debian.sh bench         what the benches need
set -eu

install() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        echo "missing: $*" >&2
        echo "install them (Debian: sudo apt-get install $*) and repeat" >&2
        return 1
    fi
}

case "$1" in
venv)
    "$2" -c 'import ensurepip, venv' 2>/dev/null || install "$(basename "$2")-venv"
    ;;
tests)
    missing=""
    command -v openssl >/dev/null || missing="$missing openssl"
    command -v curl >/dev/null || missing="$missing curl"
    command -v setpriv >/dev/null || missing="$missing util-linux"
    command -v ps >/dev/null || missing="$missing procps"
    command -v strace >/dev/null || missing="$missing strace"
    # shellcheck disable=SC2086 # a list of names
    [ -z "$missing" ] || install $missing
    ;;
bench)
    command -v wrk >/dev/null || install wrk
    ;;
*)
    echo "usage: $0 venv PYTHON | tests | bench" >&2
    exit 2
    ;;
esac
