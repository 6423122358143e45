"""What runs have left on disk, as the paper's tables, figures and claims."""
