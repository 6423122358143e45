"""Where a stage's work runs: in this process, in others, or as jobs of Slurm; and what it takes, before it runs."""
