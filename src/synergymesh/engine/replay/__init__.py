"""What if: recorded or declared runs under other limits."""
