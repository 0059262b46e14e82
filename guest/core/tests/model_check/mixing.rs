//! A hasher for keys that nobody chooses: one multiplication for each number. The standard one took half of a search.

use std::hash::{BuildHasherDefault, Hasher};

/// Digits of the golden ratio and of e, both odd.
const START: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xadf8_5458_a2bb_4a9b;

/// Equal in every run.
pub(crate) struct Mixer(u64);

/// Of a map or a set.
pub(crate) type Mixing = BuildHasherDefault<Mixer>;

impl Default for Mixer {
    fn default() -> Self {
        Self(START)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.write_u64(START);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.write_usize(bytes.len());
        for part in bytes.chunks(8) {
            let mut number = [0; 8];
            number[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(number));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0.rotate_left(23) ^ number) * u128::from(FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ START;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
