"""Several serving processes: `supervisor` starts and monitors workers; `worker` is the code that each of them runs."""
