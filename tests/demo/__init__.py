"""`make demo`: VMs boot, moor, serve and break before your eyes; every line was measured."""
