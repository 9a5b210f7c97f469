"""Wait until HOST:PORT accepts connections: wait_port.py HOST:PORT SECONDS."""

import socket
import sys
import time

host, _, port = sys.argv[1].rpartition(":")
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"nothing listens at {sys.argv[1]}: {error}")
        time.sleep(0.05)
