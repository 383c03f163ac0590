"""`sentiment verify`: compares a model with the code, data, lock and run that it came from."""
