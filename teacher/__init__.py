"""The fine-tuned network that the student mimics."""
