"""The recipe of the mini world: problems, corpus, tokenizer and mini-llama. Installed with the project as `irpo_world`."""
