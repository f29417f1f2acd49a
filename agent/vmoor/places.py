"""The folders of the agent on a VM (FHS 3.0)."""

ETC = "/etc/vmoor"
STATE = "/var/lib/vmoor"
ACCEPTED = f"{STATE}/accepted.json"  # the configuration that is in force
