//! Reads a URL into a session.
