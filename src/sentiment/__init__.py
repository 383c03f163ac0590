"""Film reviews in, a tracked, tuned and evaluated LSTM out."""

import os

# Threads of torch wait for each other some thousand times a second, by default in a busy loop. On a core that
# another process uses too, that makes training and scoring ten times slower; sleeping sooner costs next to
# nothing where the cores are idle. The OpenMP library reads this when torch is imported, so it is set here:
# every stage, the command line and the served model pass here before they import torch.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
