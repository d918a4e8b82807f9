//! The config file: one option a line, as on the command line, with `#` comments. The form of Debian's memcached.conf,
//! whose `logfile FILE` line is read as `--logfile FILE`.

use std::fs;
use std::path::PathBuf;

use super::SettingsError;
use super::given::{Given, split};

/// Options for the command line alone.
const NOT_HERE: [&str; 4] = ["config", "help", "license", "version"];

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

/// The option of a line and, behind the first space, its value; nothing for an empty line.
pub(super) fn words(line: &str) -> Vec<String> {
    let is_comment = |at: usize| line[..at].trim_end().len() < at || at == 0;
    let end = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|&at| is_comment(at));
    let line = line[..end.unwrap_or(line.len())].trim();
    let (option, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let option = if option == "logfile" {
        "--logfile"
    } else {
        option
    };
    [option, value.trim_start()]
        .into_iter()
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}
