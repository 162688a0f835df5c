"""How `compact` learns to hear words: Whisper's first layers as a stream, a head, and the motion model on them."""
