//! Sources by what people write: in options of commands, in files of routes.

#[cfg(feature = "srv")]
use super::DnsServices;
#[cfg(feature = "registry")]
use super::RegisteredNodes;
use super::{ClusterEndpoint, DnsAddresses, NodeFile, Source};
use crate::Node;

/// The forms of a source, for help and errors.
pub const SOURCE_FORMS: &str = "etcd://HOST:PORT/RING, consul://HOST:PORT/SERVICE, k8s://NAMESPACE/SERVICE[:PORT], dns://NAME:PORT, \
     srv://NAME, cluster://HOST:PORT (config get cluster) or file:///PATH";

/// The source that a text names, in one of the forms of [`SOURCE_FORMS`]. The error says what is wrong with it. Of its nodes at most a third
/// leaves within half a minute (one always may), unless [`Source::leave_share`] says another share: a list that falls apart is rarely true.
///
/// ```
/// use ketch_client::topology::source;
///
/// assert!(source("dns://cache.internal:11211").is_ok());
/// assert!(source("zookeeper://a:1/b").is_err());
/// ```
pub fn source(text: &str) -> Result<Box<dyn Source>, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let address =
        || -> Result<Node, String> { rest.parse().map_err(|error| format!("{text}: {error}")) };
    match scheme {
        "etcd" | "consul" | "k8s" => registered(text),
        "file" if !rest.is_empty() => Ok(steady(NodeFile::new(rest))),
        "dns" => {
            let Node { host, port, .. } = address()?;
            Ok(steady(DnsAddresses::new(host, port)))
        }
        "srv" if !rest.is_empty() => services(rest),
        "cluster" | "config" => Ok(steady(ClusterEndpoint::new(vec![address()?]))),
        _ => Err(format!("{text}: must be {SOURCE_FORMS}")),
    }
}

#[cfg(feature = "registry")]
fn steady(source: impl Source + 'static) -> Box<dyn Source> {
    Box::new(super::steady::SteadySource::new(source))
}

#[cfg(not(feature = "registry"))]
fn steady(source: impl Source + 'static) -> Box<dyn Source> {
    Box::new(source)
}

#[cfg(feature = "registry")]
fn registered(text: &str) -> Result<Box<dyn Source>, String> {
    let ring: RegisteredNodes = text.parse().map_err(|error| format!("{text}: {error}"))?;
    Ok(Box::new(ring))
}

#[cfg(not(feature = "registry"))]
fn registered(text: &str) -> Result<Box<dyn Source>, String> {
    Err(format!(
        "{text}: ketch-client was built without its feature \"registry\""
    ))
}

#[cfg(feature = "srv")]
fn services(name: &str) -> Result<Box<dyn Source>, String> {
    Ok(steady(DnsServices::new(name)))
}

#[cfg(not(feature = "srv"))]
fn services(name: &str) -> Result<Box<dyn Source>, String> {
    Err(format!(
        "srv://{name}: ketch-client was built without its feature \"srv\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_source_is_told_the_forms() {
        for bad in ["a:11211", "http://a", "file://", "srv://", "", "://"] {
            let error = source(bad).err().expect("no source");
            assert!(error.contains("file:///PATH"), "{bad}: {error}");
        }
        assert!(
            source("dns://a:0")
                .err()
                .is_some_and(|error| error.starts_with("dns://a:0: "))
        );
        let mut list = std::env::temp_dir();
        list.push(format!("ketch-named-{}", std::process::id()));
        std::fs::write(&list, "10.0.0.1\n").expect("a file");
        let mut named = source(&format!("file://{}", list.display())).expect("a source");
        assert_eq!(
            named.nodes().expect("it is a list"),
            [Node::new("10.0.0.1", 11211)]
        );
        std::fs::remove_file(&list).expect("it is there");
    }
}
