"""Train, tune, track and evaluate an LSTM that classifies the sentiment of film reviews."""

import os

# OpenMP threads synchronize thousands of times a second and by default wait in a busy loop. If another
# process uses the same cores, this makes training and prediction ten times slower; on idle cores, sleeping
# sooner costs almost nothing. The OpenMP library reads this variable when torch is imported, so it is set
# here: every stage, the command line and the served model import this package before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# A thread of MLflow's usage statistics changes the environment of the process while settings are read from
# it, which then fails with a KeyError and ends a worker of a search. MLflow reads this when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
