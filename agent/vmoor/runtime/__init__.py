"""How the daemon runs: loops, cells, bells, back-off, the supervisor. Knows no domain."""
