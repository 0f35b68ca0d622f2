"""Training: rows rendered to ids and labels, TRL's SFTTrainer, checkpoints and a manifest."""
