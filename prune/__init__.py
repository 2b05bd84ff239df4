"""What is cut from a trained student, and how."""
