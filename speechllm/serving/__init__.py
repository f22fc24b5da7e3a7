"""A checkpoint behind OpenAI's HTTP interface for audio, and its language model in other engines (llama.cpp, vLLM)."""
