"""Other libraries for a box of Figure 1: vLLM samples, here or behind a URL; TRL's `DPOTrainer` trains."""
