"""speechllm: turn a text LLM into one model that reads and writes speech and text."""

__version__ = "0.1.0"
