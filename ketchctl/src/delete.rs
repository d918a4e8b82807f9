//! `ketchctl delete`: deletes keys.

use std::io::{self, BufRead, BufReader, Read};

use getopts::{Matches, Options};
use ketch_client::Client;

use crate::failure::Failure;
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl delete --servers LIST [options] KEY..\n       \
    ketchctl delete --servers LIST [options] --stdin\n\n\
    Deletes the keys. Exit status 3 if one was not there, 1 if one could not be deleted.\n\n\
    With --stdin keys come one a line, and each is deleted when its line is there. It does not matter then whether they were\n\
    there: exit status 0 says that none of them is there any more.";

/// Keys that are deleted at once.
const BATCH: usize = 1000;
/// The longest line: a key, in base64 if it is, and what ends it.
const LINE_MAX: u64 = 512;

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    words::key_option(&mut options);
    cluster::options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    options.optflag("", "stdin", "keys come from standard input, one a line");
    let matches = words::parse(given, options, USAGE)?;
    if matches.opt_present("stdin") {
        words::none_but(&matches, 0, "delete --stdin")?;
        let client = access::from(&matches)?.client(&cluster::from(&matches)?);
        return delete_lines(&matches, &client, BufReader::new(io::stdin().lock()));
    }
    words::first_key(&matches, "delete")?;
    let named = matches.free.iter();
    let keys: Vec<Vec<u8>> = named
        .map(|word| words::key(&matches, word))
        .collect::<Result<_, _>>()?;
    let client = access::from(&matches)?.client(&cluster::from(&matches)?);
    let (mut missed, mut failed) = (0, false);
    for (word, result) in matches.free.iter().zip(client.delete_multi(&keys)) {
        match result {
            Ok(true) => {}
            Ok(false) => missed += 1,
            Err(error) => {
                eprintln!("ketchctl: {word}: {error}");
                failed = true;
            }
        }
    }
    match missed {
        _ if failed => Err(Failure::Told),
        0 => Ok(()),
        1 if keys.len() == 1 => Err(Failure::Missed("the key is not there".to_owned())),
        _ => Err(Failure::Missed(format!(
            "{missed} of {} keys are not there",
            keys.len()
        ))),
    }
}

/// Deletes the keys of all lines, as they come.
fn delete_lines(
    matches: &Matches,
    client: &Client,
    mut input: BufReader<impl Read>,
) -> Result<(), Failure> {
    let (mut keys, mut failed) = (Vec::new(), false);
    loop {
        let mut line = Vec::new();
        let is_end = (&mut input).take(LINE_MAX).read_until(b'\n', &mut line)? == 0;
        if line.len() as u64 == LINE_MAX && !line.ends_with(b"\n") {
            return Err(Failure::usage(
                "delete --stdin: a line is too long for a key".to_owned(),
            ));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            keys.push(key_of(matches, line)?);
        }
        // Whoever writes line by line waits for none of the next.
        let is_more = !is_end && keys.len() < BATCH && input.buffer().contains(&b'\n');
        if !is_more {
            for (key, result) in keys.iter().zip(client.delete_multi(&keys)) {
                if let Err(error) = result {
                    eprintln!("ketchctl: {}: {error}", key.escape_ascii());
                    failed = true;
                }
            }
            keys.clear();
        }
        if is_end {
            return if failed { Err(Failure::Told) } else { Ok(()) };
        }
    }
}

fn key_of(matches: &Matches, line: &[u8]) -> Result<Vec<u8>, Failure> {
    if !matches.opt_present("base64") {
        return Ok(line.to_vec());
    }
    words::key(matches, &String::from_utf8_lossy(line))
}
