"""`python -m speechllm.cli`."""

from speechllm.cli.main import app

app()
