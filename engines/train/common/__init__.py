"""What the training scripts share: mesh indices, geometry, decoding, teachers, bookkeeping."""
