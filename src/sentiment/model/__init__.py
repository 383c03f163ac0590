"""The LSTM classifier: architecture, files and inference."""
