//! `config get cluster`: a server that keeps the list of its cluster, as hosted memcached does and ketch can.
//!
//! ```text
//!  CONFIG cluster 0 57\r\n                                 or, to get AmazonElastiCache:cluster:
//!  12\n                                                    VALUE AmazonElastiCache:cluster 0 57\r\n
//!  a.example|10.0.0.1|11211 b.example||11211\n             ..the same
//!  \r\nEND\r\n
//! ```
//!
//! The first line of the value is the list's version, the second its nodes: host, address (which may be missing), port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Source, SourceError};
use crate::blocking::stream::connect_unix;
use crate::{ClientOptions, Node, NodeError};
use client_core::options::Login;
#[cfg(feature = "tls")]
use client_core::options::Tls;
use client_core::request;

/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The longest first line of an answer, in bytes, its end included.
const LINE_BYTES_MAX: usize = 256;
/// How long one server may take to connect and answer, unless the user says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is asked: as often as the clients of hosted memcached do.
const INTERVAL: Duration = Duration::from_secs(60);

const ASK: &[u8] = b"config get cluster\r\n";
/// What servers before 1.4.14 understand.
const ASK_OLD: &[u8] = b"get AmazonElastiCache:cluster\r\n";

/// What a server says of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAnswer {
    /// Grows when the nodes change.
    pub version: u64,
    /// The nodes as host, address (empty if missing) and port.
    pub nodes: Vec<(String, String, u16)>,
}

impl ClusterAnswer {
    /// The nodes, by host or by address; by the other one where that is missing.
    pub fn into_nodes(self, by_address: bool) -> Vec<Node> {
        let node = |(host, address, port): (String, String, u16)| {
            let (first, second) = if by_address {
                (address, host)
            } else {
                (host, address)
            };
            Node::new(if first.is_empty() { second } else { first }, port)
        };
        self.nodes.into_iter().map(node).collect()
    }
}

/// Reads an answer: `Ok(None)` while it is not all there.
///
/// ```
/// use ketch_client::topology::parse_cluster;
///
/// let answer = b"CONFIG cluster 0 27\r\n3\na.example|10.0.0.1|11211\n\r\nEND\r\n";
/// let answer = parse_cluster(answer)?.expect("it is all there");
/// assert_eq!(answer.version, 3);
/// assert_eq!(answer.into_nodes(true)[0].address(), "10.0.0.1:11211");
/// # Ok::<(), ketch_client::topology::SourceError>(())
/// ```
pub fn parse_cluster(answer: &[u8]) -> Result<Option<ClusterAnswer>, SourceError> {
    let begin = &answer[..answer.len().min(LINE_BYTES_MAX)];
    let Some(end) = begin.iter().position(|&byte| byte == b'\n') else {
        return match answer.len() {
            ..LINE_BYTES_MAX => Ok(None),
            _ => Err(SourceError::Malformed),
        };
    };
    let line = std::str::from_utf8(&answer[..end]).map_err(|_| SourceError::Malformed)?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let len = match words[..] {
        ["CONFIG", "cluster", _, len] | ["VALUE", "AmazonElastiCache:cluster", _, len] => len,
        ["CLIENT_ERROR", "unauthenticated"] => return Err(SourceError::SignIn),
        ["END" | "ERROR"] => return Err(SourceError::NotServed),
        _ => return Err(SourceError::Malformed),
    };
    let len: usize = len.parse().map_err(|_| SourceError::Malformed)?;
    if len > ANSWER_BYTES_MAX {
        return Err(SourceError::TooLarge);
    }
    let block = &answer[end + 1..];
    let Some(tail) = block.get(len..) else {
        return Ok(None);
    };
    const TAIL: &[u8] = b"\r\nEND\r\n";
    if tail.len() < TAIL.len() && TAIL.starts_with(tail) {
        return Ok(None);
    }
    if tail != TAIL {
        return Err(SourceError::Malformed);
    }
    let value = std::str::from_utf8(&block[..len]).map_err(|_| SourceError::Malformed)?;
    parse_value(value).map(Some)
}

/// The value: a line with the version, a line with the nodes.
fn parse_value(value: &str) -> Result<ClusterAnswer, SourceError> {
    let mut lines = value.lines();
    let version = lines.next().and_then(|line| line.trim().parse().ok());
    let version = version.ok_or(SourceError::Malformed)?;
    let places = lines.next().unwrap_or("").split_ascii_whitespace();
    let nodes = places.enumerate().map(|(i, place)| {
        let told = |error| SourceError::Node { at: i + 1, error };
        let mut fields = place.split('|');
        let (Some(host), Some(address), Some(port), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(SourceError::Malformed);
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or(told(NodeError::Port))?;
        if host.is_empty() && address.is_empty() {
            return Err(told(NodeError::Host));
        }
        for name in [host, address].into_iter().filter(|name| !name.is_empty()) {
            Node::of_host(name, port).map_err(told)?;
        }
        Ok((host.to_owned(), address.to_owned(), port))
    });
    Ok(ClusterAnswer {
        version,
        nodes: nodes.collect::<Result<_, _>>()?,
    })
}

/// Servers that are asked for the nodes of their cluster: a configuration endpoint, or some of the nodes themselves.
///
/// They are asked in their order until one answers. An answer with a lower version than the last one is from a server that was
/// not told yet, and the next one is asked; if none knows better, it is believed: the numbers have begun anew.
///
/// With [`Client::follow`](crate::Client::follow) they are spoken to as the client speaks to its nodes, with its login and TLS, unless
/// this is given others here.
#[derive(Debug, Clone)]
pub struct ClusterEndpoint {
    servers: Vec<Node>,
    by_address: bool,
    timeout: Duration,
    version: u64,
    manner: Manner,
    /// The manner is the user's own.
    told: bool,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Default)]
struct Manner {
    login: Option<Login>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl ClusterEndpoint {
    /// Asks these servers, whose weights and zones have no say.
    pub fn new(servers: impl Into<Vec<Node>>) -> Self {
        ClusterEndpoint {
            servers: servers.into(),
            by_address: false,
            timeout: TIMEOUT,
            version: 0,
            manner: Manner::default(),
            told: false,
        }
    }

    /// Without login and TLS (but for those that follow), whatever the client does.
    pub fn plain(mut self) -> Self {
        (self.manner, self.told) = (Manner::default(), true);
        self
    }

    /// Logs in.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), password.into());
        self.manner.login = Some(Login { user, password });
        self.told = true;
        self
    }

    /// Speaks TLS; as [`ClientOptions::tls`].
    #[cfg(feature = "tls")]
    pub fn tls(
        mut self,
        config: std::sync::Arc<rustls::ClientConfig>,
        server_name: Option<String>,
    ) -> Self {
        self.manner.tls = Some(Tls {
            config,
            server_name,
        });
        self.told = true;
        self
    }

    /// Nodes go by their addresses and not by their names, as in clients that were told to use the private addresses. Names and
    /// addresses make different rings.
    pub fn by_address(mut self, on: bool) -> Self {
        self.by_address = on;
        self
    }

    /// How long one server may take from connecting to the end of its answer; 2 seconds unless said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Source for ClusterEndpoint {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        let mut best: Result<ClusterAnswer, SourceError> = Err(SourceError::Empty);
        for server in &self.servers {
            match ask(server, &self.manner, Instant::now() + self.timeout) {
                Ok(answer) => {
                    let known = best.as_ref().map_or(0, |best| best.version);
                    let enough = answer.version >= self.version;
                    if best.is_err() || answer.version > known {
                        best = Ok(answer);
                    }
                    if enough {
                        break;
                    }
                }
                Err(error) if best.is_err() => best = Err(error),
                Err(_) => {}
            }
        }
        let answer = best?;
        self.version = answer.version;
        Ok(answer.into_nodes(self.by_address))
    }

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn adopt(&mut self, options: &ClientOptions) {
        if !self.told {
            self.manner.login = options.login.clone();
            #[cfg(feature = "tls")]
            self.manner.tls.clone_from(&options.tls);
        }
    }
}

/// Asks one server.
fn ask(server: &Node, manner: &Manner, deadline: Instant) -> Result<ClusterAnswer, SourceError> {
    let mut stream = connect(server, manner, deadline)?;
    if let Some(Login { user, password }) = &manner.login {
        stream.write_all(&request::login(user, password))?;
        const GOOD: &[u8] = b"STORED\r\n";
        converse(&mut *stream, |answer| match answer {
            GOOD => Ok(Some(())),
            _ if GOOD.starts_with(answer) => Ok(None),
            _ => Err(SourceError::SignIn),
        })?;
    }
    stream.write_all(ASK)?;
    match converse(&mut *stream, parse_cluster) {
        Err(SourceError::NotServed) => {
            stream.write_all(ASK_OLD)?;
            converse(&mut *stream, parse_cluster)
        }
        answer => answer,
    }
}

/// Something to write to and to read from, no longer than up to a deadline.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A socket whose every wait ends with the deadline.
struct Timed {
    socket: Socket,
    deadline: Instant,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Timed {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let left = Some(left(self.deadline)?);
        let read = match &mut self.socket {
            Socket::Tcp(socket) => {
                socket.set_read_timeout(left)?;
                socket.read(room)
            }
            Socket::Unix(socket) => {
                socket.set_read_timeout(left)?;
                socket.read(room)
            }
        };
        read.map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = Some(left(self.deadline)?);
        let written = match &mut self.socket {
            Socket::Tcp(socket) => {
                socket.set_write_timeout(left)?;
                socket.write(bytes)
            }
            Socket::Unix(socket) => {
                socket.set_write_timeout(left)?;
                socket.write(bytes)
            }
        };
        written.map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a timeout is called depends on the system.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// Connects, with TLS if it is to be and if the server is not on a unix socket.
fn connect(server: &Node, manner: &Manner, deadline: Instant) -> io::Result<Box<dyn Stream>> {
    if let Some(path) = server.socket_path() {
        let socket = UnixStream::from(connect_unix(path)?);
        socket.set_nonblocking(false)?;
        let socket = Socket::Unix(socket);
        return Ok(Box::new(Timed { socket, deadline }));
    }
    let socket = Socket::Tcp(connect_tcp(server, deadline)?);
    let timed = Timed { socket, deadline };
    #[cfg(feature = "tls")]
    if let Some(tls) = &manner.tls {
        let name = tls.server_name.as_deref().unwrap_or(&server.host);
        let name = name.to_owned().try_into().map_err(io::Error::other)?;
        let session =
            rustls::ClientConnection::new(tls.config.clone(), name).map_err(io::Error::other)?;
        return Ok(Box::new(rustls::StreamOwned::new(session, timed)));
    }
    #[cfg(not(feature = "tls"))]
    let _ = manner;
    Ok(Box::new(timed))
}

/// Tries each address of the server.
fn connect_tcp(server: &Node, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let addresses: Vec<SocketAddr> = (server.host.as_str(), server.port)
        .to_socket_addrs()?
        .collect();
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Reads until `parse` finds an answer.
fn converse<T>(
    stream: &mut dyn Stream,
    parse: impl Fn(&[u8]) -> Result<Option<T>, SourceError>,
) -> Result<T, SourceError> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = match stream.read(&mut piece) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        answer.extend_from_slice(&piece[..n]);
        if let Some(answer) = parse(&answer)? {
            return Ok(answer);
        }
    }
}

/// The time until `deadline`, if there is some.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const TWO: &str = "12\na.example|10.0.0.1|11211 b.example||11212\n";

    fn config(value: &str) -> String {
        format!("CONFIG cluster 0 {}\r\n{value}\r\nEND\r\n", value.len())
    }

    fn told(nodes: &[Node]) -> Vec<String> {
        nodes.iter().map(Node::to_string).collect()
    }

    #[test]
    fn answers_cut_anywhere() {
        let old = config(TWO).replace("CONFIG cluster", "VALUE AmazonElastiCache:cluster");
        for answer in [
            config(TWO),
            old,
            config("12\r\na.example|10.0.0.1|11211  b.example||11212"),
        ] {
            for end in 0..answer.len() {
                assert_eq!(
                    parse_cluster(&answer.as_bytes()[..end]).unwrap(),
                    None,
                    "{end} bytes"
                );
            }
            let parsed = parse_cluster(answer.as_bytes()).unwrap().unwrap();
            assert_eq!(parsed.version, 12);
            assert_eq!(
                told(&parsed.clone().into_nodes(false)),
                ["a.example:11211", "b.example:11212"]
            );
            assert_eq!(
                told(&parsed.into_nodes(true)),
                ["10.0.0.1:11211", "b.example:11212"]
            );
        }
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let answer = parse_cluster(config("0\n\n").as_bytes()).unwrap().unwrap();
        assert_eq!((answer.version, answer.nodes.len()), (0, 0));
    }

    #[test]
    fn what_is_no_answer() {
        for (answer, error) in [
            ("END\r\n".to_owned(), "the server has no list of nodes"),
            ("ERROR\r\n".to_owned(), "the server has no list of nodes"),
            (
                "VALUE other 0 1\r\nx\r\nEND\r\n".to_owned(),
                "not a list of nodes",
            ),
            ("CONFIG cluster 0 x\r\n".to_owned(), "not a list of nodes"),
            (
                "CONFIG cluster 0 99999999\r\n".to_owned(),
                "too large for a list of nodes",
            ),
            (
                "HTTP/1.1 400 Bad Request\r\n".to_owned(),
                "not a list of nodes",
            ),
            ("x".repeat(256), "not a list of nodes"),
            (format!("{}more", config(TWO)), "not a list of nodes"),
            (
                config(TWO).replace("\r\nEND", "\r\nXND"),
                "not a list of nodes",
            ),
            (config(""), "not a list of nodes"),
            (config("one\na||1\n"), "not a list of nodes"),
            (config("1\na|1\n"), "not a list of nodes"),
            (config("1\na||1|2\n"), "not a list of nodes"),
            (
                config("1\na||1 b||0\n"),
                "node 2: the port is a number from 1 to 65535",
            ),
            (config("1\n||1\n"), "node 1: no host"),
            (config("1\na/b||1\n"), "node 1: a byte that no host has"),
        ] {
            match parse_cluster(answer.as_bytes()) {
                Err(told) => assert_eq!(told.to_string(), error, "{answer:?}"),
                Ok(parsed) => panic!("{answer:?}: {parsed:?}"),
            }
        }
    }

    /// A server with an answer for each line it is sent, on each of `connections`; it hangs up behind the last one.
    fn server(
        connections: usize,
        answer: impl Fn(&str) -> String + Send + 'static,
    ) -> (Node, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::spawn(move || {
            for _ in 0..connections {
                let (stream, _) = listener.accept().unwrap();
                let mut lines = io::BufReader::new(&stream);
                let mut line = String::new();
                while lines.read_line(&mut line).unwrap_or(0) > 0 {
                    let _ = (&stream).write_all(answer(line.trim_end()).as_bytes());
                    line.clear();
                }
            }
        });
        (Node::new("127.0.0.1", port), thread)
    }

    #[test]
    fn asked_the_new_way_then_the_old_one() {
        let (new, first) = server(1, |line| {
            assert_eq!(line, "config get cluster");
            config(TWO)
        });
        let nodes = ClusterEndpoint::new([new]).nodes().unwrap();
        assert_eq!(told(&nodes), ["a.example:11211", "b.example:11212"]);
        first.join().unwrap();
        let (old, second) = server(1, |line| match line {
            "get AmazonElastiCache:cluster" => {
                config(TWO).replace("CONFIG c", "VALUE AmazonElastiCache:c")
            }
            _ => "ERROR\r\n".to_owned(),
        });
        let nodes = ClusterEndpoint::new([old])
            .by_address(true)
            .nodes()
            .unwrap();
        assert_eq!(told(&nodes), ["10.0.0.1:11211", "b.example:11212"]);
        second.join().unwrap();
        let (neither, third) = server(1, |line| match line {
            "get AmazonElastiCache:cluster" => "END\r\n".to_owned(),
            _ => "ERROR\r\n".to_owned(),
        });
        assert!(matches!(
            ClusterEndpoint::new([neither]).nodes(),
            Err(SourceError::NotServed)
        ));
        third.join().unwrap();
    }

    #[test]
    fn the_next_server_is_asked_where_one_is_dead_or_behind() {
        let dead = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Node::new("127.0.0.1", listener.local_addr().unwrap().port())
        };
        let (behind, first) = server(3, |_| config("4\nold||1\n"));
        let (ahead, second) = server(2, |_| config("5\nnew||1\n"));
        let mut source = ClusterEndpoint::new([dead, behind, ahead]);
        // Nothing is known yet: the first answer will do. Then the second server is ahead of it.
        assert_eq!(told(&source.nodes().unwrap()), ["old:1"]);
        source.version = 5;
        assert_eq!(told(&source.nodes().unwrap()), ["new:1"]);
        // All of them say less than is known: the numbers have begun anew.
        source.version = 9;
        assert_eq!(told(&source.nodes().unwrap()), ["new:1"]);
        assert_eq!(source.version, 5);
        first.join().unwrap();
        second.join().unwrap();
    }

    #[test]
    fn a_server_that_says_nothing_ends_with_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = Node::new("127.0.0.1", listener.local_addr().unwrap().port());
        let mut source = ClusterEndpoint::new([silent]).timeout(Duration::from_millis(50));
        let began = Instant::now();
        match source.nodes() {
            Err(SourceError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_server_that_never_ends_its_answer_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endless = Node::new("127.0.0.1", listener.local_addr().unwrap().port());
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(&[b'x'; 1024]).is_ok() {}
        });
        assert!(matches!(
            ClusterEndpoint::new([endless]).nodes(),
            Err(SourceError::Malformed)
        ));
        thread.join().unwrap();
    }
}
