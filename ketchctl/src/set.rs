//! `ketchctl set`: stores a value from the command line or standard input.

use std::io::{self, Read};

use getopts::Options;

use crate::failure::Failure;
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl set --servers LIST [options] KEY [VALUE]\n\n\
    Stores VALUE, or what comes from standard input, as it is and to its end. Without --ttl for ever.\n\
    Exit status 3 if --mode has an objection: add to a key that is there, the others to one that is not.";

/// The largest value any node takes, in bytes.
const VALUE_LEN_MAX: u64 = 1 << 30;

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    words::ttl_option(&mut options);
    options
        .optopt("", "flags", "client flags (default 0)", "NUMBER")
        .optopt(
            "",
            "mode",
            "set, add, replace, append or prepend (default set)",
            "MODE",
        );
    words::key_option(&mut options);
    cluster::options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 2, "set")?;
    let key = words::first_key(&matches, "set")?;
    let flags: u32 = words::option(&matches, "flags", 0, |text| text.parse().ok())?;
    let ttl = words::ttl(&matches)?;
    let mode = matches.opt_str("mode").unwrap_or_else(|| "set".to_owned());
    if !["set", "add", "replace", "append", "prepend"].contains(&mode.as_str()) {
        return Err(Failure::usage(format!(
            "--mode {mode}: it is set, add, replace, append or prepend"
        )));
    }
    let client = access::from(&matches)?.client(&cluster::from(&matches)?);
    let value = match matches.free.get(1) {
        Some(word) => word.as_bytes().to_vec(),
        None => read_value()?,
    };
    let value = (&value, flags);
    let stored = match mode.as_str() {
        "add" => client.add(key, value, ttl)?,
        "replace" => client.replace(key, value, ttl)?,
        "append" => client.append(key, value)?,
        "prepend" => client.prepend(key, value)?,
        _ => {
            client.set(key, value, ttl)?;
            true
        }
    };
    match (stored, mode.as_str()) {
        (true, _) => Ok(()),
        (false, "add") => Err(Failure::Missed("the key is there already".to_owned())),
        (false, _) => Err(Failure::Missed("the key is not there".to_owned())),
    }
}

fn read_value() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    io::stdin()
        .lock()
        .take(VALUE_LEN_MAX + 1)
        .read_to_end(&mut value)?;
    if value.len() as u64 > VALUE_LEN_MAX {
        return Err(Failure::failed("no node takes a value of more than 1 GB"));
    }
    Ok(value)
}
