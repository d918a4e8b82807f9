//! `ketchctl incr` and `ketchctl decr`: count with a value that is a number.

use getopts::Options;

use crate::failure::Failure;
use crate::{access, cluster, words};

pub fn incr(given: &[String]) -> Result<(), Failure> {
    run(given, "incr", "up, from 2^64 - 1 on to 0 again")
}

pub fn decr(given: &[String]) -> Result<(), Failure> {
    run(given, "decr", "down, to 0 at most")
}

fn run(given: &[String], command: &str, way: &str) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt(
        "",
        "create",
        "a counter that is missing begins as this number, and that is the result",
        "NUMBER",
    );
    words::ttl_option(&mut options);
    words::key_option(&mut options);
    cluster::options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    let usage = format!(
        "usage: ketchctl {command} --servers LIST [options] KEY [NUMBER]\n\n\
         Counts {way}, by NUMBER or 1, and prints the new number. --ttl is for --create.\n\
         Exit status 3 if the key is not there."
    );
    let matches = words::parse(given, options, &usage)?;
    words::none_but(&matches, 2, command)?;
    let key = words::first_key(&matches, command)?;
    let delta: u64 = match matches.free.get(1) {
        Some(word) => word
            .parse()
            .map_err(|_| Failure::usage(format!("{command}: {word} is no number")))?,
        None => 1,
    };
    let create: Option<u64> =
        words::option(&matches, "create", None, |text| text.parse().ok().map(Some))?;
    let ttl = words::ttl(&matches)?;
    if ttl.is_some() && create.is_none() {
        return Err(Failure::usage(format!(
            "{command}: --ttl needs --create; a counter that is there keeps its own"
        )));
    }
    let client = access::from(&matches)?.client(&cluster::from(&matches)?);
    let number = match (create, command) {
        (Some(initial), "incr") => Some(client.incr_or_create(key, delta, initial, ttl)?),
        (Some(initial), _) => Some(client.decr_or_create(key, delta, initial, ttl)?),
        (None, "incr") => client.incr(key, delta)?,
        (None, _) => client.decr(key, delta)?,
    };
    match number {
        Some(number) => words::print(format!("{number}\n")),
        None => Err(Failure::Missed("the key is not there".to_owned())),
    }
}
