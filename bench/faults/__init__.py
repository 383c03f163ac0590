"""`dvc repro` killed, without disk and without tracking server, and what is left when it is started again."""
