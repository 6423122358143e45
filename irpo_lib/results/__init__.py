"""What runs have left on disk, as the paper's tables and figures, each number with its interval."""
