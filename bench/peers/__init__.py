"""Other ways to train an LSTM of the same size on the same reviews, and the machine's own limit."""
