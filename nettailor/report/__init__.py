"""The comparison of finished runs: read from their folders, told as tables and as one page."""
