"""The lane engine, the fast path: sixteen images at a time, one a lane of a SIMD register."""
