"""The ground under every command: torch, timm and the disk. Knows no method."""
