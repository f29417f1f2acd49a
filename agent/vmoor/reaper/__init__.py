"""`vmoor reaper`: takes silent VMs out of the mesh. Runs beside the cluster, once or thrice.

    watcher      list and watch ─► Cell[Sight] of Leases, and of entries
    election     who of several acts ─► Cell[Leadership], and the latency of a write
    reaping      model.reaper.decision, re-read and written
    publishing   the fleet's interval and the brake, for agents and people

All that it must remember is in the cluster.
"""
