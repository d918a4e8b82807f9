//! What the targets have in common: how bytes are cut, and the properties that more than one target asserts.

pub mod parser;
pub mod server;
pub mod targets;
#[cfg(test)]
mod tests;

/// Cuts `bytes` into pieces whose sizes the bytes themselves decide, so that a crashing input repeats: the first byte seeds
/// them. Returns the pieces of the rest.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (seed, mut rest) = match bytes.split_first() {
        Some((seed, rest)) => (*seed, rest),
        None => (0, bytes),
    };
    let mut state = u32::from(seed).wrapping_mul(0x9e37_79b9) | 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // xorshift: most pieces are short, some take in much.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let most = if state % 4 == 0 {
            4096
        } else {
            1 + state as usize % 24
        };
        let (piece, behind) = rest.split_at(most.min(rest.len()));
        rest = behind;
        Some(piece)
    })
}
