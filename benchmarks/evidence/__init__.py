"""Small experiments that show the direction of published findings with the library's real parts."""
