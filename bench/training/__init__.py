"""Training measured: its speed and what the time goes into, how soon it is good, its memory."""
