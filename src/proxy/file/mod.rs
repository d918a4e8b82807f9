//! The file of routes: TOML to pools and routes. A fault is told with its word, the reason and the way out.

mod pool;
mod route;
mod words;

use std::hash::{Hash, Hasher};
use std::path::Path;

use client_core::options::ClientOptions;
use toml::{Table, Value};

pub use self::pool::NodeTls;
pub(super) use self::pool::{From, PoolSpec};
pub(super) use self::route::{Migration, Rate, RouteSpec, Shadow, Split};
use self::words::{nothing_left, take};

/// What the file says.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) pools: Vec<PoolSpec>,
    /// The longest prefix first.
    pub(super) routes: Vec<RouteSpec>,
    /// `[users.NAME]`: what each of these may ask.
    pub(super) users: Vec<(String, Rate)>,
}

/// What makes TLS of the words about it.
pub type LoadTls = fn(&NodeTls, ClientOptions) -> Result<ClientOptions, String>;

/// Reads a file, and those of TLS that it names.
pub(super) fn read(path: &Path, load_tls: LoadTls) -> Result<File, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
    if is_lua(path, &text) {
        return Err(told("this is Lua, and routes are TOML here: \"ketchctl routes\" and docs/proxy.md tell how they are written".to_owned()));
    }
    let mut file = parse(&text).map_err(told)?;
    for pool in &mut file.pools {
        let Some(tls) = &pool.tls else {
            continue;
        };
        let options = load_tls(tls, pool.options.clone());
        pool.options = options.map_err(|what| told(format!("pools.{}.{what}", pool.name)))?;
        // A pool whose files are other ones is another pool.
        let own = tls.own.iter().flat_map(|(cert, key)| [cert, key]);
        let mut digest = std::hash::DefaultHasher::new();
        for file in own.chain([&tls.ca]) {
            std::fs::read(file).unwrap_or_default().hash(&mut digest);
        }
        let digest = digest.finish().to_string();
        pool.table
            .insert("tls files".to_owned(), Value::String(digest));
    }
    Ok(file)
}

/// True for what memcached's own proxy reads.
fn is_lua(path: &Path, text: &str) -> bool {
    let is_word = |line: &str| {
        let line = line.trim_start();
        [
            "function ",
            "local ",
            "--",
            "pools{",
            "routes{",
            "mcp.",
            "require",
        ]
        .iter()
        .any(|word| line.starts_with(word))
    };
    path.extension().is_some_and(|extension| extension == "lua") || text.lines().any(is_word)
}

/// Reads the text of a file.
pub(super) fn parse(text: &str) -> Result<File, String> {
    let mut table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].matches('\n').count() + 1
        });
        format!("line {line}: {}", error.message())
    })?;
    let pools = match table.remove("pools") {
        Some(Value::Table(pools)) if !pools.is_empty() => pools,
        Some(Value::Table(_)) | None => {
            return Err("no pool: there must be one, [pools.main] with nodes = [\"HOST:PORT\", ..] or source = \"..\"".to_owned());
        }
        Some(_) => return Err("pools: must be tables, [pools.NAME]".to_owned()),
    };
    let routes = match table.remove("routes") {
        Some(Value::Array(routes)) => routes,
        None => Vec::new(),
        Some(_) => return Err("routes: must be tables, [[routes]] with prefix and pool".to_owned()),
    };
    let zone = take(
        "",
        &mut table,
        "zone",
        "a text, this proxy's zone",
        words::text,
    )?;
    let users = match table.remove("users") {
        Some(Value::Table(users)) => users,
        None => Table::new(),
        Some(_) => return Err("users: must be tables, [users.NAME] with requests_per_s".to_owned()),
    };
    nothing_left("", &table, "pools, routes, users, zone")?;
    let pools: Vec<PoolSpec> = pools
        .into_iter()
        .map(|(name, table)| pool::read(name, table, zone.as_deref()))
        .collect::<Result<_, _>>()?;
    let users = users
        .into_iter()
        .map(|(name, table)| route::user(name, table))
        .collect::<Result<_, _>>()?;
    let mut routes: Vec<RouteSpec> = routes
        .into_iter()
        .enumerate()
        .map(|(at, table)| route::read(at + 1, table, &pools))
        .collect::<Result<_, _>>()?;
    if routes.is_empty() {
        let [_only] = &pools[..] else {
            return Err(
                "no route: with several pools there must be [[routes]] with prefix and pool"
                    .to_owned(),
            );
        };
        routes.push(RouteSpec::to(0));
    }
    if let Some(twice) = routes.iter().enumerate().find_map(|(at, route)| {
        let is_same = |other: &RouteSpec| other.prefix == route.prefix;
        routes[..at].iter().any(is_same).then_some(&route.prefix)
    }) {
        let prefix = String::from_utf8_lossy(twice);
        return Err(format!(
            "routes: prefix {prefix:?} is there twice: one of the two must go"
        ));
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    Ok(File {
        pools,
        routes,
        users,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_in_the_documentation_are_files_of_routes() {
        let page = include_str!("../../../docs/proxy.md");
        let blocks = page.split("```toml\n").skip(1);
        let blocks = blocks.map(|block| block.split("```").next().unwrap_or_default());
        let mut count = 0;
        for block in blocks {
            if let Err(reason) = parse(block) {
                panic!("{reason} in\n{block}");
            }
            count += 1;
        }
        assert!(count >= 12, "{count} examples");
    }

    #[test]
    fn words_of_the_documentation_are_those_of_the_file() {
        let page = include_str!("../../../docs/proxy.md");
        for words in [route::WORDS, pool::WORDS] {
            for word in words.split(", ") {
                assert!(page.contains(&format!("`{word}`")), "{word} is not told");
            }
        }
    }
}
