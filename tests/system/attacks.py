"""What somebody tries who has become the agent's user on a VM."""

from __future__ import annotations

RENDERED = "/run/vmoor-proxy/proxy.env"
EVIL = "/run/vmoor/evil"  # where the agent's user may write and everybody may execute

# Every verb of polkit's action, and every way to another unit, that the rule does not name.
REFUSED = (
    "systemctl reload vmoor-proxy",
    "systemctl reload-or-restart vmoor-proxy",
    "systemctl try-reload-or-restart vmoor-proxy",
    "systemctl kill vmoor-proxy",
    "systemctl reset-failed vmoor-proxy",
    "systemctl freeze vmoor-proxy",
    "systemctl clean --what=state vmoor-proxy",
    "systemctl set-property --runtime vmoor-proxy CPUWeight=1",
    "systemctl bind --mkdir vmoor-proxy /run/vmoor /etc/vmoor",
    "systemctl isolate vmoor-proxy.service",
    "systemctl start --job-mode=isolate vmoor-proxy",
    "systemctl enable vmoor-proxy",
    "systemctl mask --runtime vmoor-proxy",
    "systemctl link --runtime /run/vmoor/evil.service",
    "systemctl stop vmoor",
    "systemctl restart vmoor",
    "systemctl stop ssh",
    "systemctl restart web",
    "systemctl stop multi-user.target",
    "systemctl start vmoor-proxy ssh.socket",
    "systemctl start istio",
    "systemctl start emergency.target",
    "systemctl daemon-reload",
    "systemctl daemon-reexec",
    "systemctl set-environment LD_PRELOAD=/run/vmoor/evil.so",
    "systemctl import-environment PATH",
    "systemctl poweroff",
    "systemctl reboot",
    "systemd-run true",
    "systemd-run --unit=vmoor-proxy.service true",
    "systemd-run --unit=vmoor-proxy-2.service true",
    "systemd-run --scope true",
    "systemd-mount --type=tmpfs none /etc/vmoor",
    "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 "
    "org.freedesktop.systemd1.Manager StartTransientUnit ssa(sv)a(sa(sv)) "
    "vmoor-proxy.service replace 0 0",
    "hostnamectl hostname evil",
    "timedatectl set-time 2030-01-01",
    "sudo -n true",
    "su -c true",
    "nsenter -t 1 -m true",
    "ip link set lo down",
    "/usr/sbin/iptables-nft -t nat -F",
)
REFUSAL = (
    "authentication required|[Aa]ccess denied|may not be isolated|[Pp]ermission denied"
    "|not permitted|password is required|Authentication failure"
)
# Directories into which nothing may be put, the ones of the promise first.
CLOSED = [
    "/etc/vmoor",
    "/etc/vmoor/conf.d",
    "/etc/vmoor/credentials",
    "/run/vmoor-proxy-rules",
    "/usr/libexec/vmoor",
    "/usr/share/vmoor/templates",
    "/usr/lib/python3/dist-packages/vmoor",
    "/var/lib/vmoor-proxy",
    "/lib/systemd/system",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/etc/polkit-1/rules.d",
    "/usr/share/polkit-1/rules.d",
    "/etc/ssh",
    "/usr/local/bin",
    "/usr/bin",
    "/etc/cron.d",
]
OWN = ("/run/vmoor", "/run/vmoor-proxy", "/var/lib/vmoor")

PROGRAMS = "pilot-agent envoy python3 iptables iptables-nft-save iptables-save ss sshd systemctl"
# What the agent's user may leave as proxy.env: shell text for its content or the file itself,
# and what the launcher says of it.
PLANTED = {
    f"echo LD_PRELOAD={EVIL}/evil.so >> $env": "key 'LD_PRELOAD' is not permitted",
    f"echo PATH={EVIL} >> $env": "key 'PATH' is not permitted",
    f"echo PYTHONPATH={EVIL} >> $env": "key 'PYTHONPATH' is not permitted",
    f"echo 'PROXY_CONFIG={{\"binaryPath\": \"{EVIL}/envoy\"}}' >> $env":
        "key 'PROXY_CONFIG' is not permitted",
    "grep POD_NAME= $env > $env.2; cat $env.2 >> $env": "POD_NAME stands there twice",
    f"sed -i s,^VMOOR_PILOT_AGENT=.*,VMOOR_PILOT_AGENT={EVIL}/pilot-agent, $env":
        "/run/vmoor belongs to uid",
    f"sed -i s,^VMOOR_ENVOY=.*,VMOOR_ENVOY=/usr/bin/../..{EVIL}/envoy, $env":
        "/run/vmoor belongs to uid",
    f"ln -s /usr/bin/envoy {EVIL}/link; "
    f"sed -i s,^VMOOR_ENVOY=.*,VMOOR_ENVOY={EVIL}/link, $env": "/run/vmoor belongs to uid",
    "printf 'POD_NAME=a\\033b\\n' > $env": "a control character",
    "rm $env; ln -s /etc/shadow $env": "Too many levels of symbolic links",
    # The last one: the agent must get over both when it starts anew.
    "rm $env; mkfifo $env; ln -sf /etc/shadow ${env%/*}/mesh.yaml": "is not a file",
}  # fmt: skip
