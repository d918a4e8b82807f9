//! This client's side of scripts/clients' check that other clients find what it stores: commands on standard input, fields
//! between tabs; the values are hexadecimal.
//!
//! ```text
//!  interop_peer DISTRIBUTION HOST:PORT,..
//!  set KEY FLAGS VALUE   ->  ok
//!  get KEY               ->  FLAGS VALUE, or nothing after a miss
//! ```

use std::error::Error;
use std::io::{BufRead, Write};

use ketch_client::continuum::Distribution;
use ketch_client::{Client, ClientOptions, Node};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [distribution, nodes] = &arguments[..] else {
        return Err("usage: interop_peer DISTRIBUTION HOST:PORT,..".into());
    };
    let distribution: Distribution = distribution.parse()?;
    let options = ClientOptions::default().placement(distribution);
    let client = Client::new(Node::list(nodes)?, options);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["set", key, flags, value] => {
                client.set(key, (&from_hex(value)?, flags.parse()?), None)?;
                writeln!(out, "ok")?;
            }
            ["get", key] => match client.get(key)? {
                Some(item) => writeln!(out, "{}\t{}", item.flags, to_hex(&item.value))?,
                None => writeln!(out)?,
            },
            _ => return Err(format!("no command: {line}").into()),
        }
        out.flush()?;
    }
    Ok(())
}

fn from_hex(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|two| Ok(u8::from_str_radix(std::str::from_utf8(two)?, 16)?));
    bytes.collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
