"""What a user types and reads: the command line, progress, and errors that are one sentence."""
