//! `ketchctl routes`: the file of a proxy that twemproxy's or mcrouter's file becomes.
//!
//! What has no counterpart is told on standard error, and stands as a comment where it matters; keys that would be placed elsewhere
//! always are.

use std::fmt::Write;

use getopts::Options;
use ketch_client::Node;

use crate::failure::Failure;
use crate::words;

const USAGE: &str = "usage: ketchctl routes --from twemproxy|mcrouter FILE [--pool NAME]\n\n\
    Prints the file for ketch -o proxy_config that does what FILE does: YAML of twemproxy, JSON of mcrouter. Each pool of twemproxy\n\
    listens on a port of its own, and so is a proxy of its own: --pool says which. What cannot be said is told.";

pub fn run(given: &[String]) -> Result<(), Failure> {
    let mut options = Options::new();
    options.optopt("", "from", "whose file it is", "twemproxy|mcrouter");
    options.optopt("", "pool", "the pool of twemproxy", "NAME");
    let matches = words::parse(given, options, USAGE)?;
    let [path] = &matches.free[..] else {
        return Err(Failure::usage("routes: one FILE is to be named"));
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("{path}: {error}")))?;
    let told = |reason: String| Failure::failed(format!("{path}: {reason}"));
    let Routes { toml, notes } = match matches.opt_str("from").as_deref() {
        Some("twemproxy") => of_twemproxy(&text, matches.opt_str("pool").as_deref()),
        Some("mcrouter") => of_mcrouter(&text),
        _ => {
            return Err(Failure::usage(
                "routes: --from must be twemproxy or mcrouter",
            ));
        }
    }
    .map_err(told)?;
    for note in notes {
        eprintln!("ketchctl: {path}: {note}");
    }
    print!("{toml}");
    Ok(())
}

/// A file of routes, and what it does not say.
#[derive(Debug, Default, PartialEq)]
struct Routes {
    toml: String,
    notes: Vec<String>,
}

/// A pool of twemproxy: its words, and its servers.
#[derive(Debug, Default)]
struct Twemproxy<'t> {
    name: &'t str,
    words: Vec<(&'t str, &'t str)>,
    servers: Vec<&'t str>,
}

impl<'t> Twemproxy<'t> {
    fn word(&self, name: &str) -> Option<&'t str> {
        let word = self.words.iter().find(|(word, _)| *word == name);
        word.map(|(_, value)| *value)
    }
}

/// Takes the quotes and the blanks off a value.
fn bare(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

fn of_twemproxy(text: &str, wanted: Option<&str>) -> Result<Routes, String> {
    let mut pools: Vec<Twemproxy<'_>> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if line.is_empty() || line.starts_with('#') || line == "---" {
            continue;
        }
        let fault = || format!("line {}: not what twemproxy reads: {line:?}", at + 1);
        let trimmed = line.trim_start();
        if trimmed.len() == line.len() {
            let name = line.strip_suffix(':').ok_or_else(fault)?;
            pools.push(Twemproxy {
                name: bare(name),
                ..Twemproxy::default()
            });
            continue;
        }
        let pool = pools.last_mut().ok_or_else(fault)?;
        if let Some(server) = trimmed.strip_prefix("- ") {
            pool.servers.push(bare(server));
        } else {
            let (word, value) = trimmed.split_once(':').ok_or_else(fault)?;
            pool.words.push((word.trim(), bare(value)));
        }
    }
    let names: Vec<&str> = pools.iter().map(|pool| pool.name).collect();
    let names = names.join(", ");
    let pool = match (wanted, &pools[..]) {
        (_, []) => return Err("there is no pool".to_owned()),
        (None, [pool]) => pool,
        (None, _) => {
            return Err(format!(
                "there are several pools: --pool says which of {names}"
            ));
        }
        (Some(wanted), _) => pools
            .iter()
            .find(|pool| pool.name == wanted)
            .ok_or_else(|| format!("there is no pool {wanted}; pools are {names}"))?,
    };
    if pool.word("redis").is_some_and(|word| word == "true") {
        return Err(format!("{}: it is of Redis", pool.name));
    }
    let mut routes = Routes::default();
    let mut nodes = Vec::new();
    for server in &pool.servers {
        let (address, name) = match server.split_once(' ') {
            Some((address, name)) => (address, Some(name.trim())),
            None => (*server, None),
        };
        let node: Node = address
            .parse()
            .map_err(|error| format!("{}: server {server:?}: {error}", pool.name))?;
        let node = match name {
            Some(name) => node.with_name(name),
            None => node,
        };
        nodes.push(node);
    }
    if nodes.is_empty() {
        return Err(format!("{}: it has no servers", pool.name));
    }
    let (hash, spread) = (
        pool.word("hash").unwrap_or("fnv1a_64"),
        pool.word("distribution").unwrap_or("ketama"),
    );
    let distribution = match (spread, hash) {
        ("ketama", "md5") => "ketama-weighted",
        ("ketama", "one_at_a_time") => "ketama-weighted-default",
        ("modula", "one_at_a_time") => "modula",
        ("modula", "crc32") => "python-memcached",
        _ => {
            routes.notes.push(format!(
                "{}: there is no placement like distribution {spread} with hash {hash}: keys will be on other nodes than before",
                pool.name
            ));
            "ketama-weighted"
        }
    };
    let toml = &mut routes.toml;
    if let Some(listen) = pool.word("listen") {
        let _ = writeln!(
            toml,
            "# It listened at {listen}: ketch -l HOST:PORT -o proxy_config=.."
        );
    }
    let name = toml_text(pool.name);
    let _ = writeln!(toml, "[pools.{name}]");
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| toml_text(&node.to_string()))
        .collect();
    let _ = writeln!(toml, "nodes = [{}]", nodes.join(", "));
    let _ = writeln!(toml, "distribution = {}", toml_text(distribution));
    if pool.word("hash_tag").is_some_and(|tag| tag == "{}") {
        toml.push_str("hash_tags = true\n");
    }
    let number = |word: &str| pool.word(word).and_then(|value| value.parse::<u64>().ok());
    if let Some(ms) = number("timeout") {
        let _ = writeln!(
            toml,
            "attempt_timeout_ms = {ms}\nrequest_timeout_ms = {}",
            ms.max(1000)
        );
    }
    match pool.word("auto_eject_hosts") {
        Some("true") => {
            let _ = writeln!(
                toml,
                "eject_after = {}",
                number("server_failure_limit").unwrap_or(2)
            );
            let _ = writeln!(
                toml,
                "probe_after_ms = {}",
                number("server_retry_timeout").unwrap_or(30_000)
            );
        }
        _ => toml.push_str("on_ejection = \"fail_fast\"\n"),
    }
    if let Some(connections) = number("server_connections").filter(|&count| count > 1) {
        let _ = writeln!(toml, "connections = {}", connections.min(64));
    }
    let _ = writeln!(toml, "\n[[routes]]\nprefix = \"\"\npool = {name}");
    Ok(routes)
}

/// A text as TOML has it.
fn toml_text(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => _ = write!(out, "\\u{:04X}", letter as u32),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn of_mcrouter(text: &str) -> Result<Routes, String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut routes = Routes::default();
    let pools = json["pools"].as_object().ok_or("there are no pools")?;
    for (name, pool) in pools {
        let servers = pool["servers"]
            .as_array()
            .ok_or_else(|| format!("pools.{name}: it has no servers"))?;
        let mut nodes = Vec::new();
        for server in servers {
            let server = server.as_str().unwrap_or_default();
            // host:port:protocol:..
            let address: Vec<&str> = server.splitn(3, ':').take(2).collect();
            let node: Node = address
                .join(":")
                .parse()
                .map_err(|error| format!("pools.{name}: server {server:?}: {error}"))?;
            nodes.push(toml_text(&node.to_string()));
        }
        if nodes.is_empty() {
            return Err(format!("pools.{name}: it has no servers"));
        }
        let _ = writeln!(
            routes.toml,
            "[pools.{}]\nnodes = [{}]\n",
            toml_text(name),
            nodes.join(", ")
        );
    }
    routes.notes.push(
        "mcrouter's hash has no counterpart: keys will be on other nodes than before".to_owned(),
    );
    let route = &json["route"];
    let mut all = Vec::new();
    match route["type"].as_str() {
        Some("PrefixSelectorRoute") => {
            for (prefix, policy) in route["policies"].as_object().into_iter().flatten() {
                all.push((prefix.clone(), pool_of(policy)?));
            }
            if !route["wildcard"].is_null() {
                all.push((String::new(), pool_of(&route["wildcard"])?));
            }
        }
        _ => all.push((String::new(), pool_of(route)?)),
    }
    for (prefix, pool) in all {
        if !pools.contains_key(&pool) {
            return Err(format!("route: there is no pool {pool:?}"));
        }
        let (prefix, pool) = (toml_text(&prefix), toml_text(&pool));
        let _ = writeln!(
            routes.toml,
            "[[routes]]\nprefix = {prefix}\npool = {pool}\n"
        );
    }
    Ok(routes)
}

/// The pool that a route of mcrouter leads to.
fn pool_of(route: &serde_json::Value) -> Result<String, String> {
    if let Some(text) = route.as_str() {
        let pool = text.strip_prefix("PoolRoute|");
        return pool
            .map(str::to_owned)
            .ok_or_else(|| format!("route: {text:?} has no counterpart; PoolRoute|NAME has"));
    }
    match (route["type"].as_str(), route["pool"].as_str()) {
        (Some("PoolRoute"), Some(pool)) => Ok(pool.to_owned()),
        (kind, _) => Err(format!(
            "route: type {:?} has no counterpart; PoolRoute and PrefixSelectorRoute have",
            kind.unwrap_or("none")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_twemproxy_becomes_one_of_ours() {
        let yaml = "alpha:\n  listen: 127.0.0.1:22121\n  hash: md5\n  distribution: ketama\n  auto_eject_hosts: true\n  \
            server_failure_limit: 3\n  timeout: 400\n  hash_tag: \"{}\"\n  servers:\n   - 10.0.0.1:11211:1 one\n   - 10.0.0.2:11211:2\n";
        let routes = of_twemproxy(yaml, None).expect("it is one");
        assert_eq!(routes.notes, Vec::<String>::new());
        assert_eq!(
            routes.toml,
            "# It listened at 127.0.0.1:22121: ketch -l HOST:PORT -o proxy_config=..\n[pools.\"alpha\"]\n\
             nodes = [\"one=10.0.0.1:11211\", \"10.0.0.2:11211:2\"]\ndistribution = \"ketama-weighted\"\nhash_tags = true\n\
             attempt_timeout_ms = 400\nrequest_timeout_ms = 1000\neject_after = 3\nprobe_after_ms = 30000\n\n\
             [[routes]]\nprefix = \"\"\npool = \"alpha\"\n"
        );
        let two = format!("{yaml}beta:\n  hash: fnv1a_64\n  servers:\n   - b:1:1\n");
        let told = of_twemproxy(&two, None).expect_err("there are two");
        assert!(told.contains("alpha, beta"), "{told}");
        let beta = of_twemproxy(&two, Some("beta")).expect("it is there");
        assert!(
            beta.notes[0].contains("other nodes than before"),
            "{:?}",
            beta.notes
        );
        for (fault, told) in [
            ("", "no pool"),
            ("a:\n  redis: true\n  servers:\n   - b:1:1\n", "Redis"),
            ("a:\n  hash: md5\n", "no servers"),
            ("a:\n  servers:\n   - b:x:1\n", "port"),
            ("  a: b\n", "line 1"),
        ] {
            let error = of_twemproxy(fault, None).expect_err(fault);
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_file_of_mcrouter_becomes_one_of_ours() {
        let json = r#"{"pools": {"A": {"servers": ["127.0.0.1:5000"]}, "B": {"servers": ["127.0.0.1:5001:ascii"]}},
            "route": {"type": "PrefixSelectorRoute", "policies": {"b:": "PoolRoute|B"}, "wildcard": "PoolRoute|A"}}"#;
        let routes = of_mcrouter(json).expect("it is one");
        assert_eq!(
            routes.toml,
            "[pools.\"A\"]\nnodes = [\"127.0.0.1:5000\"]\n\n[pools.\"B\"]\nnodes = [\"127.0.0.1:5001\"]\n\n\
             [[routes]]\nprefix = \"b:\"\npool = \"B\"\n\n[[routes]]\nprefix = \"\"\npool = \"A\"\n\n"
        );
        for (fault, told) in [
            ("{", "EOF"),
            (
                r#"{"pools": {"A": {"servers": ["a:1"]}}, "route": "PoolRoute|C"}"#,
                "no pool \"C\"",
            ),
            (
                r#"{"pools": {"A": {"servers": ["a:1"]}}, "route": {"type": "AllSyncRoute"}}"#,
                "AllSyncRoute",
            ),
        ] {
            let error = of_mcrouter(fault).expect_err(fault);
            assert!(error.contains(told), "{error}");
        }
    }
}
