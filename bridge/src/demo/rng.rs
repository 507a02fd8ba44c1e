//! A small generator of random numbers whose sequence never changes between versions of a dependency.

/// SplitMix64: one seed, one sequence, for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero when the bound is.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// A number below `bound` of which small ones are much more likely, as popular customers and articles are.
    pub(crate) fn skewed(&mut self, bound: u64) -> u64 {
        let (a, b) = (self.below(bound), self.below(bound));
        let product = u128::from(a) * u128::from(b) / u128::from(bound.max(1));
        u64::try_from(product)
            .map(|value| value * self.within(1, 100) / 100)
            .unwrap_or(0)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of the values; the first when the list is empty is never asked for.
    pub(crate) fn pick<'a>(&mut self, values: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.below(values.len() as u64)).unwrap_or(0);
        values.get(at).copied().unwrap_or_default()
    }
}
