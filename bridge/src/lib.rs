//! The bridge process.
