"""The programs that vmoor-proxy.service runs; the agent imports the names below, no program.

Three parties, none of which trusts the one before it:

- the agent (user vmoor) writes into RENDERED: proxy.env (KEY=VALUE, the value is the rest of the
  line), mesh.yaml, root-cert.pem, istio-token; each mode 0640, replaced by a rename;
- the launcher (user istio-proxy, the unit's main process) takes from proxy.env what its
  allow-list permits, starts pilot-agent in the unit's cwd and tells systemd how the proxy is;
- the hook (root) sets the capture rules once the proxy is ready and removes them when it is
  gone. It reads root-owned /etc/vmoor, and KEPT of its own for when that is broken: nothing
  that the other two could have written.

What the agent reads back:

- RULES, written by the hook while rules are in force: {"invocation_id": the unit's,
  "mode": "redirect" | "none", "dns": bool, "backend": "nft" | "legacy" | ""};
- the unit's STATUS= (StatusText over D-Bus), which begins with one of STARTING, READY, NOT_READY
  and STOPPING; after STARTING and NOT_READY come a colon and the reason.
"""

UNIT = "vmoor-proxy.service"
RENDERED = "/run/vmoor-proxy"
RULES = "/run/vmoor-proxy-rules/rules.json"
KEPT = "/var/lib/vmoor-proxy-rules/settings.json"  # not in the unit's cwd, which is the proxy's
USER = "istio-proxy"  # what Istio's own package calls it
AGENT_GROUP = "vmoor"

STARTING = "starting"
READY = "ready"
NOT_READY = "not ready"
STOPPING = "stopping"
