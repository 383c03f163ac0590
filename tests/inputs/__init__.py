"""Inputs written from the formats' own rules, before the code that reads them: each is right or refused."""
