"""Training of a small checkpoint in the released layout, from datasets that `premotor sim collect` writes."""
