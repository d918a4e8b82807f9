//! HTTP requests: the same events however the bytes are cut, within the limits.
use crate::pieces;
use ketch_http::{Decoder, Event, Limits};

const LIMITS: Limits = Limits {
    head_bytes: 512,
    body_bytes: 1024,
};

fn events<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Vec<Event> {
    let (mut decoder, mut events) = (Decoder::new(LIMITS), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let fed = decoder.feed(piece);
            assert!(fed.consumed > 0 && fed.consumed <= piece.len());
            piece = &piece[fed.consumed..];
            if let Some(Event::Request(request)) = &fed.event {
                assert!(request.body.len() <= LIMITS.body_bytes);
                let _ = (
                    request.decoded_path(),
                    request.has_dot_segments(),
                    request.parameter("key"),
                );
            }
            events.extend(fed.event);
        }
    }
    events
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((_, rest)) = bytes.split_first() else {
        return;
    };
    assert_eq!(events(pieces(bytes)), events(std::iter::once(rest)));
}
