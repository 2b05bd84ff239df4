"""NetTailor: cut a pretrained vision network to the size of a task."""
