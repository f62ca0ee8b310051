"""A Ray cluster on this machine, and jobs for any: plays no part in what a run writes."""
