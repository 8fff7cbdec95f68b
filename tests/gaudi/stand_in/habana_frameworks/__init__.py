"""Stand-in for Habana's package: records what is asked of it and behaves as documented, without a card."""
