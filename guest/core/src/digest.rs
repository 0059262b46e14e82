//! [`Digest`]: a number that stands for a sequence of numbers and texts, the same in every host.

/// Mixes 64-bit words one by one: exclusive or, multiply, shift, as the finalizer of SplitMix64 does (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). A word costs one multiplication where FNV-1a
/// costs eight, and every decision makes a fingerprint. Not for secrets.
#[derive(Clone, Debug)]
pub struct Digest(u64);

impl Digest {
    /// The digest of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Adds a number that may be absent: 0 for none, else 1 and the number.
    pub fn option(&mut self, number: Option<u64>) {
        self.number(number.is_some().into());
        if let Some(number) = number {
            self.number(number);
        }
    }

    /// Adds a text: its bytes, eight to a little-endian word, the last one filled up with zeros; then their number.
    pub fn text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.number(u64::from_le_bytes(word));
        }
        self.number(text.len() as u64);
    }

    /// The digest.
    #[must_use]
    pub fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}
