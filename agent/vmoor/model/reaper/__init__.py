"""What the reaper sees and decides. Pure; instants are its own Clock.now() seconds.

Another machine's clock proves nothing: a Lease is judged by when this process saw it change.
"""

from vmoor.model import entry

LEASE_EXPIRED = "LeaseExpired"  # the reason of the one condition that the reaper writes
MANAGER = "vmoor-reaper"  # its field manager, its account and its election Lease
NAMESPACE = "vmoor-system"
LABELS = {entry.MANAGED_BY: entry.OWNER}  # of its own Leases: the watch selects by them, too
