//! The ways in which bytes may arrive.

/// Ends of the pieces in which `bytes` arrive, for several ways: one byte at a time, in two parts, and in pieces of mixed sizes. Where
/// the cuts are follows from the bytes alone, so that an input repeats.
pub fn ways(bytes: &[u8]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let len = bytes.len();
    // FNV-1a
    let mut state =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &b| (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..4_usize).map(move |way| {
        let largest = [1, len, 7, 64][way].max(1);
        let mut ends = Vec::new();
        let mut at = 0;
        while at < len {
            at = if way == 1 && at > 0 { len } else { len.min(at + 1 + (next(&mut state) % largest as u64) as usize) };
            ends.push(at);
        }
        ends
    })
}

/// splitmix64
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
