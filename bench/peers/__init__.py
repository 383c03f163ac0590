"""Other implementations of LSTM training of equal size on equal reviews, and the limit of the machine."""
