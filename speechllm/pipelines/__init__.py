"""What users call: one system per checkpoint, and the same behind `transformers.pipeline`."""
