//! Choices read from raw bytes, for targets whose input is a sequence of steps.

/// What is left of an input. Behind its end everything is 0, so that each input means something and a cut one means less.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from the beginning.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number: small, at an edge of its width, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=239 => u64::from(small),
            240..=247 => u64::MAX - u64::from(self.byte()),
            248..=251 => (1 << (self.byte() % 64)) - 1 + u64::from(self.byte() % 3),
            252..=255 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// At most 255 bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(len);
        self.0 = rest;
        piece
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
