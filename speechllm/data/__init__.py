"""Records, shards on disk, and the way from one to the other."""
