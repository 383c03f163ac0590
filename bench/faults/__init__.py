"""`dvc repro` killed, without disk and without tracking server, and the result after a restart."""
