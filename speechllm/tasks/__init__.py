"""Tasks, their tags and the languages in them."""

from speechllm.tasks.languages import LANGUAGE_NAMES, language_code, language_name
from speechllm.tasks.tag import TaskTag
from speechllm.tasks.task import ASR, AST, MT, S2ST, TASKS, TTS, Field, Task, register_task
from speechllm.tasks.trained import NOTHING, TrainedFor

__all__ = [
    "ASR", "AST", "LANGUAGE_NAMES", "MT", "NOTHING", "S2ST", "TASKS", "TTS", "Field", "Task", "TaskTag", "TrainedFor",
    "language_code", "language_name", "register_task",
]  # fmt: skip
