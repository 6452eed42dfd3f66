"""What single families promise beyond what holds of every loss."""
