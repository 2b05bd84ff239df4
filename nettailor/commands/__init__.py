"""What the commands do, once their flags and settings were found good."""
