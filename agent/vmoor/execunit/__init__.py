"""What vmoor-exec.service runs: the operator's own commands, without the agent's rights.

The agent connects to SOCKET and sends one JSON line, {"service": NAME, "check": INDEX}: which of
services.NAME.checks, or {"source": true} for sources.exec, or {"hook": NAME, "vm": NAME, "reason":
TEXT} for hooks.NAME, which has the two in its environment. The runner takes the command itself
from root-owned /etc/vmoor, never from the request, and answers with one JSON line:
{"code": N, "timed_out": bool, "output": TEXT, "errors": TEXT, "cut": bool}, or {"error": WORDS}
when it ran nothing. A check's output is both stdout and stderr, a source's is stdout alone; what
is no UTF-8 are lone surrogates in it, `cut` tells that there was more.
"""

SOCKET = "/run/vmoor-exec.socket"
SOCKET_UNIT = "vmoor-exec.socket"
GROUP = "vmoor-exec"

REQUEST_LIMIT = 4 << 10  # bytes, with the newline
OUTPUT_LIMIT = 4 << 10  # bytes of a check's output, and of a source's stderr, that are kept
HOOK_S = 60.0  # for a hook, which may ask a cloud's API; a spot VM has two minutes
DOCUMENT_LIMIT = 1 << 20  # bytes of a source's output: as long as a file of services may be


def answer_limit(output: int) -> int:
    """The longest answer. One byte is at most six in JSON (\u0000), and the rest is short."""
    return 6 * (output + OUTPUT_LIMIT) + 1024
