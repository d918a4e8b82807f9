//! The config file: options as on the command line, usually one a line, with `#` comments and quotes as in a shell. The
//! form of Debian's memcached.conf, whose `logfile FILE` line is read as `--logfile FILE`.

use std::fs;
use std::path::PathBuf;

use super::SettingsError;
use super::given::{Given, split};

/// Options for the command line alone.
const NOT_HERE: [&str; 5] = ["config", "help", "license", "print", "version"];

/// Reads the file that `config` names.
pub(super) fn read(config: &Given) -> Result<Vec<Given>, SettingsError> {
    let path = PathBuf::from(&config.value);
    let text =
        fs::read_to_string(&path).map_err(|err| config.error(format!("cannot be read: {err}")))?;
    let mut given = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = words(line);
        if !words.is_empty() {
            let line = split(&words, Some((path.clone(), index + 1)))?;
            if let Some(one) = line.iter().find(|one| NOT_HERE.contains(&one.opt.long)) {
                return Err(one.error("has no place in a config file"));
            }
            given.extend(line);
        }
    }
    Ok(given)
}

/// The words of a line, as a shell would cut them: at blanks, but not between quotes; a `#` behind a blank begins a
/// comment. What follows a value and is no option belongs to the value, so that `-P /run/my file` names one file.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = word(rest);
        rest = after.trim_start();
        match words.len() {
            0 if word == "logfile" => words.push("--logfile".to_owned()),
            0 | 1 => words.push(word),
            _ if word.starts_with('-') => words.push(word),
            last => {
                words[last - 1].push(' ');
                words[last - 1].push_str(&word);
            }
        }
    }
    words
}

/// The word that `text` begins with, without its quotes, and what follows it.
fn word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next().filter(|c| !c.is_whitespace()) {
        rest = &rest[c.len_utf8()..];
        // A quote that is never closed is a character like others.
        match rest.split_once(c) {
            Some((quoted, after)) if c == '"' || c == '\'' => {
                word.push_str(quoted);
                rest = after;
            }
            _ => word.push(c),
        }
    }
    (word, rest)
}
