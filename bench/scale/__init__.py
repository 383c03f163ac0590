"""Search, training and tokenization beyond one machine: equal results, speed-up, and the first limits."""
