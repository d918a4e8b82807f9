//! `ketchctl touch`: gives a key a new time to live.

use getopts::Options;

use crate::failure::Failure;
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl touch --servers LIST --ttl TIME [options] KEY\n\n\
    Gives the key a new time to live, from now on. Exit status 3 if the key is not there.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    words::ttl_option(&mut options);
    words::key_option(&mut options);
    cluster::options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
    words::none_but(&matches, 1, "touch")?;
    let key = words::first_key(&matches, "touch")?;
    let Some(ttl) = words::ttl(&matches)? else {
        return Err(Failure::usage(
            "touch: --ttl is missing; --ttl 0 is for ever",
        ));
    };
    let client = access::from(&matches)?.client(&cluster::from(&matches)?);
    match client.touch(key, ttl)? {
        true => Ok(()),
        false => Err(Failure::Missed("the key is not there".to_owned())),
    }
}
