"""Wait until a starting daemon is ready: wait_ready.py DATA PID SECONDS."""

import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

data, pid, deadline = Path(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
reason = "it wrote no endpoint"
loopback = ssl.create_default_context()
loopback.check_hostname, loopback.verify_mode = False, ssl.CERT_NONE  # only whether it answers
while time.monotonic() < deadline:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        state = "Z"
    if state == "Z":
        sys.exit("the daemon ended while it was starting; its last lines are above")
    try:
        url = (data / "endpoint").read_text().strip()
        urllib.request.urlopen(f"{url}/readyz", timeout=2, context=loopback).close()
        sys.exit(0)
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace").strip() or str(error)
    except (OSError, ValueError) as error:
        reason = str(error)
    time.sleep(0.05)
sys.exit(f"the daemon is not ready: {reason}")
