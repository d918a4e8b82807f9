//! The command line, the environment and the configuration file: settings or a refusal of one line, never a panic. The same
//! words mean the same on the line and in the file.
use ketch::settings::{self, Start};

/// The target.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // A file that a fuzzer names could be a device that never ends.
    if ["config", "@", "/dev", "/proc"]
        .iter()
        .any(|word| text.contains(word))
    {
        return;
    }
    let words = || text.lines().map(str::to_owned);
    let of_line = settings::parse(words(), &|_| None, None);
    match &of_line {
        Ok(Start::Run(settings)) => {
            assert!(settings.threads > 0 && settings.conns_max > 0);
            assert!(settings.memory_limit_bytes >= 1 << 20);
            assert!(settings.item_bytes_max <= settings.memory_limit_bytes / 2);
            assert!(settings.chunk_bytes_min <= settings.slab_chunk_bytes_max);
        }
        Ok(Start::Print(page)) => assert!(!page.is_empty()),
        Err(error) => {
            let told = error.to_string();
            assert!(!told.contains('\n'), "{told:?}");
            assert!(told.contains(": "), "{told:?}");
        }
    }
    let listen = text.lines().next().unwrap_or_default().to_owned();
    let _ = settings::parse(std::iter::empty(), &move |_| Some(listen.clone()), None);
}
