"""One look by the agent's own prober."""

from __future__ import annotations

import threading

from vmoor.adapters.probes import Probes
from vmoor.model.health import Probe
from vmoor.model.service import Polled

_RUNG = threading.Event()
_PROBES: Probes[str] = Probes(_RUNG.set)


def look(probe: Polled, timeout: float) -> Probe:
    _RUNG.clear()
    _PROBES.submit("one", probe, timeout, quiet=lambda _: False)
    assert _RUNG.wait(timeout + 5), "the look does not end"
    (done,) = _PROBES.take()
    if done.error is not None:
        raise done.error
    assert done.result is not None
    return done.result
