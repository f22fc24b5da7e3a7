"""What is timed, against whom, and the miniature of the paper's findings; see README.md."""
