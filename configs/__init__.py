"""The shipped YAML settings, one file a task."""
