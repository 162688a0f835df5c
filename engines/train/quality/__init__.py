"""What comes out, measured by code of its own."""
