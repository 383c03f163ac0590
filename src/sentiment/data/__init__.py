"""Reviews and their labels: where they come from, what is dropped, which split each one is in."""
