"""Training steps equal to sae_lens's, sparse where the SAE is sparse, in place on its tensors."""
