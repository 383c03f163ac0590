"""Where the trials of a search train: in this process, in processes on this machine, or on a Ray cluster."""
