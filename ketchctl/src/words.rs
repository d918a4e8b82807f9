//! The words of a command: options, keys, numbers.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use getopts::{Matches, Options};
use protocol::{KEY_LEN_MAX, base64};

use crate::failure::Failure;
use crate::units;

/// Parses `words`; `--help`, which every command has, ends the command with `usage` and the list of options.
pub fn parse(words: &[String], mut options: Options, usage: &str) -> Result<Matches, Failure> {
    options.optflag("h", "help", "print this");
    let matches = options.parse(words)?;
    if matches.opt_present("help") {
        return Err(Failure::Help(options.usage(usage)));
    }
    Ok(matches)
}

/// Refuses words that a command does not take.
pub fn none_but(matches: &Matches, most: usize, command: &str) -> Result<(), Failure> {
    match matches.free.get(most) {
        Some(word) => Err(Failure::usage(format!("{command}: what is {word}?"))),
        None => Ok(()),
    }
}

/// The value of an option, read by `read`, or what goes without it.
pub fn option<T>(
    matches: &Matches,
    name: &str,
    default: T,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Failure> {
    match matches.opt_str(name) {
        Some(text) => read(&text)
            .ok_or_else(|| Failure::usage(format!("--{name} {text} is not what it takes"))),
        None => Ok(default),
    }
}

/// `--base64`, for keys that cannot be typed.
pub fn key_option(options: &mut Options) {
    options.optflag("", "base64", "keys are given in base64");
}

/// The key that `word` stands for.
pub fn key(matches: &Matches, word: &str) -> Result<Vec<u8>, Failure> {
    if !matches.opt_present("base64") {
        return Ok(word.as_bytes().to_vec());
    }
    let mut room = [0; KEY_LEN_MAX];
    match base64::decode(word.as_bytes(), &mut room) {
        Some(len) => Ok(room[..len].to_vec()),
        None => Err(Failure::usage(format!(
            "{word} is no key of 1 to {KEY_LEN_MAX} bytes in base64"
        ))),
    }
}

/// The first word, which is a key.
pub fn first_key(matches: &Matches, command: &str) -> Result<Vec<u8>, Failure> {
    match matches.free.first() {
        Some(word) => key(matches, word),
        None => Err(Failure::usage(format!("{command}: the key is missing"))),
    }
}

/// `--ttl`.
pub fn ttl_option(options: &mut Options) {
    options.optopt(
        "",
        "ttl",
        "how long it lives: seconds, or 15m, 2h, 7d; 0 is for ever",
        "TIME",
    );
}

/// What it was given; `None` without it.
pub fn ttl(matches: &Matches) -> Result<Option<Duration>, Failure> {
    option(matches, "ttl", None, |text| units::duration(text).map(Some))
}

/// Writes to standard output.
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}
