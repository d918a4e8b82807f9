//! The file of a proxy's routes: pools and routes, or a refusal of one line, never a panic.

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(told) = ketch::proxy::check(text) {
        assert!(!told.is_empty() && !told.contains('\n'), "{told:?}");
    }
}
