//! A server of the cluster, as the user names it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::IntErrorKind;
use std::str::FromStr;

/// memcached's port, where none is named.
pub const DEFAULT_PORT: u16 = 11211;

/// The longest path of a unix socket, in bytes: `sun_path` without the byte that ends it.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// One server of the cluster.
///
/// Written `[name=]host[:port[:weight]][@zone]`; an IPv6 address stands in brackets where a port or weight follows it. A unix
/// socket is written `unix:/path[:weight][@zone]`, or without `unix:` as for libmemcached.
///
/// ```
/// use ketch_client::Node;
///
/// let node: Node = "10.0.0.7:11212:3@rack-2".parse()?;
/// assert_eq!((node.host.as_str(), node.port, node.weight), ("10.0.0.7", 11212, 3));
/// assert_eq!(node.zone.as_deref(), Some("rack-2"));
/// assert_eq!("cache-a".parse::<Node>()?, Node::new("cache-a", 11211));
/// assert_eq!("[::1]:11212".parse::<Node>()?.host, "::1");
/// assert_eq!("unix:/run/memcached.sock:2".parse::<Node>()?, Node::unix("/run/memcached.sock").with_weight(2));
/// assert_eq!("node-1=10.0.0.7:11212".parse::<Node>()?, Node::new("10.0.0.7", 11212).with_name("node-1"));
/// # Ok::<(), ketch_client::NodeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// The host as the user wrote it, an IPv6 address without its brackets: placement uses this text, neither resolved
    /// nor lower-cased. A path, which begins with `/`, is a unix socket.
    pub host: String,
    /// TCP port; 0 of a unix socket, which is also what libmemcached's Ketama labels have for it (`/path:0`).
    pub port: u16,
    /// Share of the keys relative to the other nodes; 1 unless said otherwise, and 0 counts as 1 (libmemcached's rule).
    pub weight: u32,
    /// Where the node stands (rack, availability zone): copies go to different zones where there are several.
    pub zone: Option<String>,
    /// What placement calls the node, in place of its address: a server that comes back at another address under the same
    /// name keeps its keys.
    pub name: Option<String>,
}

/// Why a text does not name a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeError {
    /// No host.
    Host,
    /// A byte that no host name and no address has: white space, a control character, one of `/ , | @ [ ] =`.
    HostByte,
    /// `[` without `]`, or something other than `:port` behind it.
    Brackets,
    /// More colons than `host:port:weight` has: an IPv6 address needs brackets.
    Colons,
    /// The port is no number from 1 to 65535.
    Port,
    /// The weight is no number.
    Weight,
    /// The weight is above 4294967295.
    WeightTooLarge,
    /// `@` without a zone, or white space in it.
    Zone,
    /// `=` without a name before it, or a name with a byte that none has: white space, a control character, one of `, | @ =`.
    Name,
    /// A byte that no path of a unix socket is written with: white space, a control character, one of `, | @`. Or the path has more than
    /// the 107 bytes that systems take.
    Path,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeError::Host => "no host",
            NodeError::HostByte => "a byte that no host has",
            NodeError::Brackets => {
                "brackets go around an IPv6 address, :port and :weight behind them"
            }
            NodeError::Colons => "more than host:port:weight; an IPv6 address needs brackets",
            NodeError::Port => "the port is a number from 1 to 65535",
            NodeError::Weight => "the weight is a number",
            NodeError::WeightTooLarge => "the weight is at most 4294967295",
            NodeError::Zone => "the zone behind @ is a word",
            NodeError::Name => "the name before = is a word",
            NodeError::Path => "not the path of a unix socket",
        })
    }
}

impl std::error::Error for NodeError {}

impl Node {
    /// A node of weight 1 in no zone.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Node {
            host: host.into(),
            port,
            weight: 1,
            zone: None,
            name: None,
        }
    }

    /// A node by a host that somebody else has named: a name server, or whoever keeps a list. The host is no more than a host, so that
    /// nobody names a socket of this machine, or a weight, with it.
    #[doc(hidden)]
    pub fn of_host(host: &str, port: u16) -> Result<Self, NodeError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || "/,|@[]=".contains(c);
        match host {
            "" => Err(NodeError::Host),
            _ if host.contains(bad) => Err(NodeError::HostByte),
            _ if port == 0 => Err(NodeError::Port),
            _ => Ok(Node::new(host, port)),
        }
    }

    /// A server on a unix socket of this machine. `path` begins with `/`.
    pub fn unix(path: impl Into<String>) -> Self {
        Node::new(path, 0)
    }

    /// The path, if it is a unix socket.
    pub fn socket_path(&self) -> Option<&str> {
        self.host.starts_with('/').then_some(&self.host)
    }

    /// The same node with this weight.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The same node in this zone.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// The same node, which placement calls by this name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same node under the name that spymemcached's rings give a host name, `host/ip:port`; `ip` is the address that the
    /// Java program resolves the host to. A host that is an address needs no name.
    #[must_use]
    pub fn with_java_name(self, ip: IpAddr) -> Self {
        if self.host.parse::<IpAddr>().is_ok() {
            return self;
        }
        let name = format!("{}/{}", self.host, java_address(ip, self.port));
        self.with_name(name)
    }

    /// The node as spymemcached's rings have it.
    #[doc(hidden)]
    pub fn java_label(&self) -> Cow<'_, str> {
        match (&self.name, self.host.parse()) {
            (Some(name), _) => name.into(),
            (None, Ok(ip)) => java_address(ip, self.port).into(),
            (None, Err(_)) => self.label(),
        }
    }

    /// The name, or `host:port` without brackets, or the path of a socket: the node as most rings have it.
    #[doc(hidden)]
    pub fn label(&self) -> Cow<'_, str> {
        match (&self.name, self.socket_path()) {
            (Some(name), _) => name.into(),
            (None, Some(path)) => path.into(),
            (None, None) => format!("{}:{}", self.host, self.port).into(),
        }
    }

    /// `host:port`, an IPv6 address in brackets, or `unix:/path`: what names the node wherever it is talked of, and what is
    /// connected to.
    pub fn address(&self) -> String {
        if let Some(path) = self.socket_path() {
            format!("unix:{path}")
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Nodes from a list with commas between them, as options and environment variables have it. Empty places are left out.
    pub fn list(text: &str) -> Result<Vec<Node>, NodeError> {
        let places = text.split(',').map(str::trim);
        places
            .filter(|place| !place.is_empty())
            .map(str::parse)
            .collect()
    }
}

/// What names nodes: text, a [`Node`], a socket's address, `(host, port)`, and lists of these.
pub trait IntoNodes {
    /// The nodes, or what is wrong with the text.
    fn into_nodes(self) -> Result<Vec<Node>, NodeError>;
}

/// A list with commas between them.
impl IntoNodes for &str {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        Node::list(self)
    }
}

impl IntoNodes for &String {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        Node::list(self)
    }
}

impl IntoNodes for String {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        Node::list(&self)
    }
}

impl IntoNodes for Node {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        Ok(vec![self])
    }
}

impl IntoNodes for SocketAddr {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        (self.ip().to_string(), self.port()).into_nodes()
    }
}

impl<H: Into<String>> IntoNodes for (H, u16) {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        Node::new(self.0, self.1).into_nodes()
    }
}

impl<T: IntoNodes> IntoNodes for Vec<T> {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        let each = self.into_iter().map(T::into_nodes);
        Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

impl<T: IntoNodes, const N: usize> IntoNodes for [T; N] {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        Vec::from(self).into_nodes()
    }
}

impl<T: IntoNodes + Clone> IntoNodes for &[T] {
    fn into_nodes(self) -> Result<Vec<Node>, NodeError> {
        self.to_vec().into_nodes()
    }
}

/// The name if there is one, `host:port`, the weight if it is not 1, the zone if there is one. Parsing it gives the node again.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        f.write_str(&self.address())?;
        // The `:1` of a path would be read as a weight.
        let ends_so = |path: &str| split_weight(path).1.is_some();
        if self.socket_path().is_some_and(ends_so) {
            write!(f, ":0:{}", self.weight)?;
        } else if self.weight != 1 {
            write!(f, ":{}", self.weight)?;
        }
        match &self.zone {
            Some(zone) => write!(f, "@{zone}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Node {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        // The path of a socket may have a `=` of its own.
        if !text.starts_with('/')
            && !text.starts_with("unix:/")
            && let Some((name, node)) = text.split_once('=')
        {
            if name.is_empty() || name.contains(NOT_IN_NAMES) {
                return Err(NodeError::Name);
            }
            let node: Node = node.parse()?;
            return match node.name {
                Some(_) => Err(NodeError::Name),
                None => Ok(node.with_name(name)),
            };
        }
        let (address, zone) = match text.split_once('@') {
            Some((address, zone)) => (address, Some(parse_zone(zone)?)),
            None => (text, None),
        };
        let path = address.strip_prefix("unix:").unwrap_or(address);
        if path.starts_with('/') {
            let node = parse_socket(path)?;
            if zone.as_ref().is_some_and(|zone| zone.contains('/')) {
                return Err(NodeError::Path);
            }
            return Ok(Node { zone, ..node });
        }
        // `numbers` is what stands behind the host, its first colon included.
        let (host, numbers) = if let Some(rest) = address.strip_prefix('[') {
            let (host, numbers) = rest.split_once(']').ok_or(NodeError::Brackets)?;
            if !(numbers.is_empty() || numbers.starts_with(':')) {
                return Err(NodeError::Brackets);
            }
            (host, numbers)
        } else if address.matches(':').count() > 2 || address.starts_with("::") {
            return Err(NodeError::Colons);
        } else {
            address.split_at(address.find(':').unwrap_or(address.len()))
        };
        let mut node = Node {
            zone,
            ..Node::of_host(host, DEFAULT_PORT)?
        };
        let mut fields = numbers.split(':').skip(1);
        let (port, weight) = (fields.next(), fields.next());
        if fields.next().is_some() {
            return Err(NodeError::Colons);
        }
        if let Some(port) = port {
            node.port = parse_port(port)?;
        }
        if let Some(weight) = weight {
            node.weight = parse_weight(weight)?;
        }
        Ok(node)
    }
}

/// What no name has: it would not be read again as one.
const NOT_IN_NAMES: fn(char) -> bool =
    |c| c.is_whitespace() || c.is_control() || ",|@=".contains(c);

/// `ip:port` as Java writes it since version 14: IPv6 in brackets, without leaving out zeros.
fn java_address(ip: IpAddr, port: u16) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => {
            let groups = ip.segments().map(|group| format!("{group:x}"));
            format!("[{}]:{port}", groups.join(":"))
        }
    }
}

/// `path:weight`, if that is a number.
fn split_weight(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, weight)) if !weight.is_empty() && digits(weight).is_some() => {
            (path, Some(weight))
        }
        _ => (text, None),
    }
}

/// `/path[[:0]:weight]`, where 0 is the port; what else stands behind a colon belongs to the path.
fn parse_socket(text: &str) -> Result<Node, NodeError> {
    let (path, weight) = split_weight(text);
    let (path, weight) = match weight {
        Some(weight) => (
            path.strip_suffix(":0").unwrap_or(path),
            parse_weight(weight)?,
        ),
        None => (path, 1),
    };
    let bad = |c: char| c.is_whitespace() || c.is_control() || ",|".contains(c);
    if path.len() > SOCKET_PATH_LEN_MAX || path.ends_with('/') || path.contains(bad) {
        return Err(NodeError::Path);
    }
    Ok(Node::unix(path).with_weight(weight))
}

/// A number without a sign.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)
}

fn parse_port(text: &str) -> Result<u16, NodeError> {
    match digits(text).map(str::parse) {
        Some(Ok(port)) if port != 0 => Ok(port),
        _ => Err(NodeError::Port),
    }
}

fn parse_weight(text: &str) -> Result<u32, NodeError> {
    match digits(text).map(str::parse::<u32>) {
        Some(Ok(weight)) => Ok(weight),
        Some(Err(e)) if *e.kind() == IntErrorKind::PosOverflow => Err(NodeError::WeightTooLarge),
        _ => Err(NodeError::Weight),
    }
}

fn parse_zone(text: &str) -> Result<String, NodeError> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || "@,|".contains(c)) {
        return Err(NodeError::Zone);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_node() {
        for (text, node) in [
            ("a", Node::new("a", 11211)),
            ("a:1", Node::new("a", 1)),
            ("Cache-A.example:65535", Node::new("Cache-A.example", 65535)),
            (
                "10.0.0.1:11212:5",
                Node::new("10.0.0.1", 11212).with_weight(5),
            ),
            ("a:1:0", Node::new("a", 1).with_weight(0)),
            ("a:1:4294967295", Node::new("a", 1).with_weight(u32::MAX)),
            ("a@z", Node::new("a", 11211).with_zone("z")),
            (
                "a:1:2@eu-1a",
                Node::new("a", 1).with_weight(2).with_zone("eu-1a"),
            ),
            ("[::1]", Node::new("::1", 11211)),
            ("/run/m.sock", Node::unix("/run/m.sock")),
            ("unix:/m:9", Node::unix("/m").with_weight(9)),
            ("unix:/a:b", Node::unix("/a:b")),
            ("/a:@z", Node::unix("/a:").with_zone("z")),
            (
                "unix:/a:1:2@z",
                Node::unix("/a:1").with_weight(2).with_zone("z"),
            ),
            ("/a:1:1", Node::unix("/a:1")),
            ("/a:0:3", Node::unix("/a").with_weight(3)),
            ("/a:0:0:3", Node::unix("/a:0").with_weight(3)),
            ("unix:1", Node::new("unix", 1)),
            ("n1=a", Node::new("a", 11211).with_name("n1")),
            ("unix:/a=b", Node::unix("/a=b")),
            (
                "cache-a/10.0.0.1:11211=cache-a:11211:2@z",
                Node::new("cache-a", 11211)
                    .with_weight(2)
                    .with_zone("z")
                    .with_name("cache-a/10.0.0.1:11211"),
            ),
            ("n=/run/m.sock", Node::unix("/run/m.sock").with_name("n")),
            ("[fe80::1%eth0]:7", Node::new("fe80::1%eth0", 7)),
            (
                "[2001:db8::2]:11211:4@b",
                Node::new("2001:db8::2", 11211)
                    .with_weight(4)
                    .with_zone("b"),
            ),
        ] {
            assert_eq!(text.parse::<Node>(), Ok(node.clone()), "{text}");
            assert_eq!(
                node.to_string().parse::<Node>(),
                Ok(node),
                "{text} written out and read again"
            );
        }
    }

    #[test]
    fn what_does_not() {
        for (text, error) in [
            ("", NodeError::Host),
            (":11211", NodeError::Host),
            ("[]:1", NodeError::Host),
            ("@z", NodeError::Host),
            ("a b", NodeError::HostByte),
            ("a/b", NodeError::HostByte),
            ("unix:", NodeError::Port),
            ("unix:a", NodeError::Port),
            ("unix:/a b", NodeError::Path),
            ("/run/", NodeError::Path),
            ("/a@b/c", NodeError::Path),
            ("/a:4294967296", NodeError::WeightTooLarge),
            ("a,b", NodeError::HostByte),
            ("a|10.0.0.1|11211", NodeError::HostByte),
            ("[::1", NodeError::Brackets),
            ("[::1]11211", NodeError::Brackets),
            ("::1", NodeError::Colons),
            ("2001:db8::2", NodeError::Colons),
            ("a:1:2:3", NodeError::Colons),
            ("a:", NodeError::Port),
            ("a:0", NodeError::Port),
            ("a:+1", NodeError::Port),
            ("a:65536", NodeError::Port),
            ("a:x", NodeError::Port),
            ("a:1:", NodeError::Weight),
            ("a:1:-1", NodeError::Weight),
            ("a:1:1.5", NodeError::Weight),
            ("a:1:4294967296", NodeError::WeightTooLarge),
            ("=a", NodeError::Name),
            ("n=", NodeError::Host),
            ("n m=a", NodeError::Name),
            ("n@z=a", NodeError::Name),
            ("n=m=a", NodeError::Name),
            ("a@", NodeError::Zone),
            ("a@b c", NodeError::Zone),
            ("a@b@c", NodeError::Zone),
        ] {
            assert_eq!(text.parse::<Node>(), Err(error), "{text}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(
            Node::list("a, b:1,, unix:/s,c:2:3,"),
            Ok(vec![
                Node::new("a", 11211),
                Node::new("b", 1),
                Node::unix("/s"),
                Node::new("c", 2).with_weight(3)
            ])
        );
        assert_eq!(Node::list(""), Ok(vec![]));
        assert_eq!(Node::list("a,b:0"), Err(NodeError::Port));
    }

    #[test]
    fn whatever_names_nodes() {
        let two = || vec![Node::new("a", 11211), Node::new("b", 1)];
        assert_eq!("a,b:1".into_nodes(), Ok(two()));
        assert_eq!(String::from("a,b:1").into_nodes(), Ok(two()));
        assert_eq!(["a", "b:1"].into_nodes(), Ok(two()));
        assert_eq!(vec![("a", 11211), ("b", 1)].into_nodes(), Ok(two()));
        assert_eq!(two()[..].into_nodes(), Ok(two()));
        let address: SocketAddr = "[::1]:7".parse().expect("an address");
        assert_eq!(address.into_nodes(), Ok(vec![Node::new("::1", 7)]));
        assert_eq!(["a", "b:0"].into_nodes(), Err(NodeError::Port));
    }

    #[test]
    fn addresses() {
        assert_eq!(Node::new("a", 1).with_weight(9).address(), "a:1");
        assert_eq!(Node::new("::1", 1).address(), "[::1]:1");
        assert_eq!(Node::unix("/a").with_zone("z").address(), "unix:/a");
        assert_eq!(Node::new("a", 1).with_name("n").address(), "a:1");
    }

    #[test]
    fn names_of_java() {
        let java = |node: Node, ip: &str| {
            let node = node.with_java_name(ip.parse().expect("an address"));
            node.java_label().into_owned()
        };
        for (host, ip, label) in [
            ("cache-a", "10.0.0.1", "cache-a/10.0.0.1:11211"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1:11211"),
            ("cache-a", "::1", "cache-a/[0:0:0:0:0:0:0:1]:11211"),
            ("2001:db8::a", "2001:db8::a", "[2001:db8:0:0:0:0:0:a]:11211"),
        ] {
            assert_eq!(java(Node::new(host, 11211), ip), label);
        }
    }
}
