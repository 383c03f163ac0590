"""Inputs written from the formats' own rules, before the code that reads them: what is right, or that it is refused."""
