//! What a node may send to the proxy: replies end at the same places however the bytes are cut, and never beyond them.
use ketch::proxy::frame::{Progress, Shape, end};

use crate::pieces;

const SHAPES: [Shape; 5] = [
    Shape::Line,
    Shape::Values,
    Shape::Meta,
    Shape::Any,
    Shape::Packet,
];

/// The ends of replies of one shape in bytes that come in `pieces`, and whether they were garbage at last.
fn ends<'p>(shape: Shape, pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<usize>, bool) {
    let (mut came, mut start, mut ends) = (Vec::new(), 0, Vec::new());
    let mut progress = Progress::default();
    for piece in pieces {
        came.extend_from_slice(piece);
        loop {
            match end(shape, &came[start..], &mut progress) {
                Ok(Some(len)) => {
                    assert!(len > 0 && len <= came.len() - start, "{shape:?}: {len}");
                    for block in &progress.blocks {
                        assert!(block.start < block.end && (block.end as usize) < len);
                    }
                    start += len;
                    ends.push(start);
                    progress = Progress::default();
                }
                Ok(None) => break,
                Err(_) => return (ends, true),
            }
        }
    }
    (ends, false)
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((_, rest)) = bytes.split_first() else {
        return;
    };
    for shape in SHAPES {
        let cut = ends(shape, pieces(bytes));
        assert_eq!(cut, ends(shape, std::iter::once(rest)), "{shape:?}");
    }
}
