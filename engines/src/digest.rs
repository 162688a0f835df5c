//! SHA-256 of what is read and written, in lower-case hexadecimal.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// Of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Of all that a reader gives, read piece by piece.
pub fn sha256_of(mut from: impl Read) -> io::Result<String> {
    let mut to = Hashing::new(io::sink());
    io::copy(&mut from, &mut to)?;
    to.finish()
}

/// Two digits a byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Passes on what is written to it, of which the hash is known at the end.
pub(crate) struct Hashing<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> Hashing<W> {
    pub fn new(to: W) -> Self {
        Self { to, hasher: Sha256::new() }
    }

    /// The hash, once everything has been passed on.
    pub fn finish(mut self) -> io::Result<String> {
        self.to.flush()?;
        Ok(hexadecimal(&self.hasher.finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_files_have_one_hash() {
        // FIPS 180-4's example.
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), wanted);
        assert_eq!(sha256_of(&b"abc"[..]).unwrap(), wanted);
        let mut kept = Vec::new();
        let mut hashing = Hashing::new(&mut kept);
        hashing.write_all(b"abc").unwrap();
        assert_eq!(hashing.finish().unwrap(), wanted);
        assert_eq!(kept, b"abc");
    }
}
