"""The LSTM classifier: its shape, its files, its predictions."""
