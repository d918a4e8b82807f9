//! The programs that tests start, and their versions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The two servers that the client's tests run against.
pub const KINDS: [Kind; 2] = [Kind::Memcached, Kind::Ketch];

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The original: see [`memcached`].
    Memcached,
    /// This workspace's: see [`ketch`].
    Ketch,
}

impl Kind {
    /// Its binary.
    pub fn program(self) -> &'static Path {
        match self {
            Kind::Memcached => memcached(),
            Kind::Ketch => ketch(),
        }
    }
}

/// A memcached's version, for instance 1.6.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The memcached whose rules ketch follows.
    pub const FOLLOWED: Version = Version(1, 6, 45);

    /// Reads the last word of `text`, as in `VERSION 1.6.18` and `memcached 1.6.45`.
    pub fn parse(text: &str) -> Option<Version> {
        let word = text.split_whitespace().last()?;
        let mut numbers = word.split(['.', '-', '_']).map(|n| n.parse().ok());
        Some(Version(
            numbers.next()??,
            numbers.next()??,
            numbers.next()??,
        ))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The version that a memcached prints for `-V`.
#[track_caller]
pub fn version_of(program: &Path) -> Version {
    let output = Command::new(program).arg("-V").output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(text.lines().next().unwrap_or_default())
        .unwrap_or_else(|| panic!("{} -V prints no version: {text:?}", program.display()))
}

/// The original that tests compare with: `KETCH_MEMCACHED`, or the `memcached` in `PATH`. `scripts/test` installs it.
#[track_caller]
pub fn memcached() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = std::env::var_os("KETCH_MEMCACHED") {
            return named.into();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join("memcached"))
            .find(|file| file.is_file());
        found.expect("no memcached in PATH: install it, or name one in KETCH_MEMCACHED")
    })
}

/// The server under test: `KETCH_SERVER`, or this workspace's.
pub fn binary() -> PathBuf {
    match std::env::var_os("KETCH_SERVER") {
        Some(named) => named.into(),
        None => ketch().to_owned(),
    }
}

/// The server under test is ketch, not an original.
pub fn is_ketch() -> bool {
    let name = binary()
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    name.is_some_and(|name| name.contains("ketch"))
}

/// The ketch of this workspace, in the profile of the tests. `KETCH_SERVER` names another one, if it is a ketch.
pub fn ketch() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let named = std::env::var_os("KETCH_SERVER").map(PathBuf::from);
        if let Some(named) = named
            && named
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains("ketch"))
        {
            return named;
        }
        // target/debug/deps/this-test, or target/debug/examples/this-example -> target/debug/ketch
        let mut path = std::env::current_exe().expect("a test has a path");
        path.pop();
        path.pop();
        let built_by_cargo =
            std::env::var("CARGO_PKG_NAME").is_ok_and(|package| package == "ketch");
        if !built_by_cargo && let Some(cargo) = std::env::var_os("CARGO") {
            build(&cargo, &path);
        }
        path.push("ketch");
        assert!(path.is_file(), "{}: not built", path.display());
        path
    })
}

/// Builds ketch, for a test of another package: cargo builds a program only for the tests of its own package.
fn build(cargo: &std::ffi::OsStr, profile_dir: &Path) {
    let mut build = Command::new(cargo);
    // What cargo tells this test of its package would have build scripts run again, and all built anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST") {
            build.env_remove(&name);
        }
    }
    build.args([
        "build",
        "-q",
        "-p",
        "ketch",
        "--bin",
        "ketch",
        "--target-dir",
    ]);
    build.arg(
        profile_dir
            .parent()
            .expect("a profile's directory lies in target"),
    );
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(
        built.expect("cargo starts").success(),
        "ketch does not build"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let parsed = |text| Version::parse(text).expect("a version");
        assert_eq!(parsed("VERSION 1.6.18"), Version(1, 6, 18));
        assert!(parsed("memcached 1.6.9") < parsed("memcached 1.6.45"));
        assert_eq!(parsed("memcached 1.6.45_3-dirty"), Version::FOLLOWED);
        assert_eq!(parsed("VERSION 1.6.45").to_string(), "1.6.45");
        assert_eq!(Version::parse("ERROR"), None);
        assert_eq!(Version::parse("memcached 1.6"), None);
    }
}
