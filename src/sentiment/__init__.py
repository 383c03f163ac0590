"""Film reviews in, a tracked, tuned and evaluated LSTM out."""
