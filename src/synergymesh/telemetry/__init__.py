"""What a running mesh shows to monitoring systems."""
