"""Networks as files that need nothing of this project."""
