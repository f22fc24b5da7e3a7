"""Training: the LM on the HF Trainer, every other stage on one loop."""
