"""What holds of every loss. A new one is tested from the moment it is declared."""
