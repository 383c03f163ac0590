"""The CUDA path measured on a bare machine, from one folder that holds all it needs."""
