"""What vmoor-exec.service runs: the operator's own checks, without the agent's rights.

The agent connects to SOCKET and sends one JSON line, {"service": NAME, "check": INDEX}: which of
services.NAME.checks. The runner takes the command itself from root-owned /etc/vmoor, never from
the request, and answers with one JSON line: {"code": N, "timed_out": bool, "output": TEXT}, or
{"error": WORDS} when it ran nothing.
"""

SOCKET = "/run/vmoor-exec.socket"
SOCKET_UNIT = "vmoor-exec.socket"
GROUP = "vmoor-exec"

REQUEST_LIMIT = 4 << 10  # bytes, with the newline
OUTPUT_LIMIT = 4 << 10  # bytes of the command's output that are kept
# One byte of the output is at most six in JSON (\u0000), and the rest of the line is short.
ANSWER_LIMIT = 6 * OUTPUT_LIMIT + 1024
