"""The quickstart: see run.py."""
