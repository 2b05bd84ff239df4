"""What each command takes on its command line, checked before anything heavy is imported."""
