"""What vmoor-ttl.socket starts: root makes the folders in which the agent listens for ttl checks.

Each service with a ttl check has FOLDER/NAME/socket, a datagram socket of the agent's. Its folder
is vmoor:GROUP 2750, so the socket is the group's without a chgrp, which the agent cannot do. Who
connects to SOCKET asks for nothing but "now": which folders, and whose, is root's configuration.
The answer is one JSON line, {NAME: why it is not as wanted}; "" = all of them.
"""

FOLDER = "/run/vmoor-ttl"
ENTRY = "socket"
OWNER = "vmoor"  # user and group of the agent
SOCKET = "/run/vmoor-ttl.socket"
SOCKET_UNIT = "vmoor-ttl.socket"

ANSWER_LIMIT = 64 << 10  # bytes
TOLD_LIMIT = 100  # problems in one answer, each shorter than 512 bytes
