"""Train, tune, track and evaluate an LSTM that classifies the sentiment of film reviews."""

import os

# The threads of torch wait for each other some thousand times a second, by default in a busy loop. On a core
# that another process uses too, this makes training and scoring ten times slower; on idle cores, sleeping
# sooner costs almost nothing. The OpenMP library reads this variable when torch is imported, so it is set
# here: every stage, the command line and the served model import this package before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
