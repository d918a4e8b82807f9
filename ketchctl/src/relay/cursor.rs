//! The cursor: how far each source is carried over, in a file.
//!
//! ```text
//!  ketch relay cursor 1
//!  purge no
//!  10.0.0.1:11211 00c0ffee00c0ffee:17
//! ```
//!
//! Cu1. What a file says is done, or kept in the spool, when the file is written. It is replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ketch_client::feed::Place;

const HEAD: &str = "ketch relay cursor 1";

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// What was missed, or dropped, is still to be deleted in the target.
    pub purge: bool,
    /// By the address of a source.
    pub places: BTreeMap<String, Place>,
}

impl Cursor {
    /// What the file says; `None` if there is none.
    pub fn load(path: &Path) -> io::Result<Option<Cursor>> {
        match fs::read_to_string(path) {
            Ok(text) => match Cursor::parse(&text) {
                Some(cursor) => Ok(Some(cursor)),
                None => Err(io::Error::other(
                    "it is no cursor of a relay; without the file the relay begins with what happens from now on",
                )),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Cursor> {
        // A file that was cut ends within a line.
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next() != Some(HEAD) {
            return None;
        }
        let purge = match lines.next()? {
            "purge no" => false,
            "purge yes" => true,
            _ => return None,
        };
        let mut places = BTreeMap::new();
        for line in lines {
            let (address, place) = line.rsplit_once(' ')?;
            places.insert(address.to_owned(), place.parse().ok()?);
        }
        Some(Cursor { purge, places })
    }

    fn text(&self) -> String {
        let word = if self.purge { "yes" } else { "no" };
        let mut text = format!("{HEAD}\npurge {word}\n");
        for (address, place) in &self.places {
            text.push_str(&format!("{address} {place}\n"));
        }
        text
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let new = beside(path);
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(self.text().as_bytes())?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
            // What is left of it takes room that may be what is missing.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = std::env::temp_dir().join(format!("ketch-cursor-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("cursor");
        assert_eq!(Cursor::load(&path).unwrap(), None);
        let mut cursor = Cursor::default();
        for purge in [true, false] {
            cursor.purge = purge;
            let place = Place {
                epoch: 0x00c0_ffee,
                seq: u64::MAX,
            };
            cursor.places.insert("/run/a b.sock".into(), place);
            cursor.save(&path).unwrap();
            assert_eq!(Cursor::load(&path).unwrap(), Some(cursor.clone()));
        }
        let text = fs::read_to_string(&path).unwrap();
        for len in 0..text.len() {
            let cut = Cursor::parse(&text[..len]);
            assert!(
                cut.is_none_or(|cut| cut.places.is_empty()),
                "{:?}",
                &text[..len]
            );
        }
        fs::write(&path, "something else\n").unwrap();
        let error = Cursor::load(&path).unwrap_err().to_string();
        assert!(error.contains("no cursor"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
