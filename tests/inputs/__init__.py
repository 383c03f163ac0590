"""Inputs that follow from the specifications of the formats; each is read correctly or rejected."""
