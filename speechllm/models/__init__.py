"""Models: the unified causal LM (stock transformers, more rows), adapters, SoundStorm, AudioLM."""
