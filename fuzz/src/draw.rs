//! What a check needs beyond the bytes, drawn from them.

/// Numbers drawn from bytes: the same bytes, the same numbers.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn from(bytes: &[u8]) -> Self {
        // FNV-1a, so that a change of any byte changes all that is drawn.
        Self(
            bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    /// SplitMix64.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number up to `most`.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        (self.number() % (most as u64 + 1)) as usize
    }

    /// The bytes in `most` pieces at most, none of them empty.
    pub(crate) fn split<'b>(&mut self, bytes: &'b [u8], most: usize) -> Vec<&'b [u8]> {
        let mut ends: Vec<_> = (0..self.up_to(most - 1)).map(|_| self.up_to(bytes.len())).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        let pieces = ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]);
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}
