"""Many inputs: finding them, computing each, here or on a cluster, and recording what is done. `run.BatchRun` is the entry."""
