"""Stage one: video in, one feature per frame out. Never imports `heads`."""
