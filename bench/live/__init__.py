"""What the live benches share: a server of their own, publishers, players and markers. Peers are real programs."""
