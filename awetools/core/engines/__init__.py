"""Where plans run: a plan is a graph of ordinary command lines, and an engine needs nothing but the files."""
