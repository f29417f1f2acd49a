"""The test mesh: real etcd, API server, istiod, Envoy, OpenBao and VMs in network namespaces.

Nothing in here is a mock, and nothing may reach anything outside the rig's own namespaces.
The demo, the tests and the benchmarks all use it; `python3 -m tests.rig` starts it by hand.
"""
