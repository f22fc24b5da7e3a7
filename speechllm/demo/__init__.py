"""A page in the browser that shows what a checkpoint can do (Gradio)."""
