"""The recipe of the mini world: problems, corpus, tokenizer, mini-llama. Installed with the project as `irpo_world`."""
