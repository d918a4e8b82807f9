//! `ketchctl delete`: deletes keys.

use getopts::Options;

use crate::failure::Failure;
use crate::{access, cluster, words};

const USAGE: &str = "usage: ketchctl delete --servers LIST [options] KEY..\n\n\
    Deletes the keys. Exit status 3 if one was not there, 1 if one could not be deleted.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    words::key_option(&mut options);
    cluster::options(&mut options);
    cluster::copies_option(&mut options);
    access::options(&mut options);
    let matches = words::parse(given, options, USAGE)?;
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
