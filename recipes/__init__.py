"""Recipes: complete trainings, each a config and a thin program over the library."""
