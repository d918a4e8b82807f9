//! SRV records (RFC 2782) of a name: host, port and weight of each server.
//!
//! The system's resolver has no word for them, so the name servers of `/etc/resolv.conf` are asked: over UDP, and over TCP where
//! an answer was too long for that. Packets are made and read by `simple-dns`; names are taken as they are, without search list.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

use super::dns::DNS_INTERVAL;
use super::endpoint::left;
use super::jitter::Jitter;
use super::{Source, SourceError};
use crate::Node;

/// Where the system keeps the addresses of its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The resolver asks no more servers than this (glibc's MAXNS).
const SERVERS_MAX: usize = 3;
/// Rounds through all servers: a datagram may be lost.
const ROUNDS: usize = 2;
/// How long one server may take, unless the user says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Each SRV record of a name, for instance `_memcache._tcp.cache.example`, is a node: its target by name, its port, its weight.
///
/// Only the records of the lowest priority number count, as RFC 2782 has it. Weights are reduced to the smallest whole numbers of
/// the same ratio, so that equal weights are 1 whatever their number: Kubernetes divides 100 among its endpoints, and a ring
/// would change with each of them. A weight of 0 is 1. Sorted by host and port.
#[derive(Debug, Clone)]
pub struct DnsServices {
    name: String,
    servers: Vec<SocketAddr>,
    timeout: Duration,
    ids: Jitter,
}

impl DnsServices {
    /// The services of `name`.
    pub fn new(name: impl Into<String>) -> Self {
        DnsServices {
            name: name.into(),
            servers: Vec::new(),
            timeout: TIMEOUT,
            ids: Jitter::random(),
        }
    }

    /// Asks these name servers instead of the system's.
    pub fn servers(mut self, servers: impl Into<Vec<SocketAddr>>) -> Self {
        self.servers = servers.into();
        self
    }

    /// How long one name server may take; 2 seconds unless said. Each is asked twice at most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Source for DnsServices {
    fn nodes(&mut self) -> Result<Vec<Node>, SourceError> {
        let servers = match &self.servers[..] {
            [] => system_servers(&fs::read_to_string(RESOLV_CONF).unwrap_or_default()),
            given => given.to_vec(),
        };
        let mut last = SourceError::Empty;
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            let id = self.ids.next() as u16;
            let question = question(&self.name, id)?;
            let deadline = Instant::now() + self.timeout;
            match ask(*server, &question, deadline).and_then(|answer| parse_services(&answer, id)) {
                Ok(Some(nodes)) => return Ok(nodes),
                // An answer that is whole only over TCP.
                Ok(None) => {
                    let answer = ask_by_stream(*server, &question, deadline)?;
                    return parse_services(&answer, id)?.ok_or(SourceError::Malformed);
                }
                // It knows, and nobody else knows better.
                Err(error @ SourceError::Dns(NO_SUCH_NAME)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn interval(&self) -> Option<Duration> {
        Some(DNS_INTERVAL)
    }
}

/// The response code of a name that does not exist.
const NO_SUCH_NAME: u16 = 3;

/// The servers of a resolv.conf; this machine, if it names none.
fn system_servers(conf: &str) -> Vec<SocketAddr> {
    let named = conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())?;
        let address: IpAddr = address?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    let named: Vec<SocketAddr> = named.take(SERVERS_MAX).collect();
    if named.is_empty() {
        return vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))];
    }
    named
}

fn question(name: &str, id: u16) -> Result<Vec<u8>, SourceError> {
    let no_name = |_| SourceError::Io(io::ErrorKind::InvalidInput.into());
    let name = Name::new(name.trim_end_matches('.')).map_err(no_name)?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(no_name)
}

/// The nodes of a name server's answer to the question `id`; `None` if it was cut short and is to be had whole over TCP.
#[doc(hidden)]
pub fn parse_services(answer: &[u8], id: u16) -> Result<Option<Vec<Node>>, SourceError> {
    let packet = Packet::parse(answer).map_err(|_| SourceError::Malformed)?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return Err(SourceError::Malformed);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(None);
    }
    if packet.rcode() != RCODE::NoError {
        return Err(SourceError::Dns(packet.rcode() as u16));
    }
    let records = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
    let records: Vec<_> = records.collect();
    let priority = records.iter().map(|srv| srv.priority).min();
    let mut nodes: Vec<Node> = Vec::new();
    for srv in records
        .into_iter()
        .filter(|srv| Some(srv.priority) == priority)
    {
        let host = srv.target.to_string();
        let host = host.trim_end_matches('.');
        // A target of nothing says that the service is not offered; a name that cannot be a host is none.
        if host.is_empty() {
            continue;
        }
        let at = nodes.len() + 1;
        let node = Node::of_host(host, srv.port);
        let node = node.map_err(|error| SourceError::Node { at, error })?;
        nodes.push(node.with_weight(srv.weight.max(1).into()));
    }
    nodes.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    nodes.dedup_by(|a, b| (&a.host, a.port) == (&b.host, b.port));
    let divisor = nodes
        .iter()
        .fold(0, |divisor, node| gcd(node.weight, divisor));
    for node in &mut nodes {
        node.weight /= divisor;
    }
    Ok(Some(nodes))
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Asks by a datagram. The socket is connected: the system drops what comes from elsewhere.
fn ask(server: SocketAddr, question: &[u8], deadline: Instant) -> Result<Vec<u8>, SourceError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    // The largest datagram there is.
    let mut answer = vec![0; 65_535];
    loop {
        socket.set_read_timeout(Some(left(deadline)?))?;
        let n = socket.recv(&mut answer)?;
        // The answer to another question, or to nobody's, is passed over.
        if answer[..n].get(..2) == question.get(..2) {
            answer.truncate(n);
            return Ok(answer);
        }
    }
}

/// Asks over TCP, where a packet comes behind its length.
fn ask_by_stream(
    server: SocketAddr,
    question: &[u8],
    deadline: Instant,
) -> Result<Vec<u8>, SourceError> {
    let mut stream = TcpStream::connect_timeout(&server, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let len = u16::try_from(question.len()).expect("a name is short");
    stream.write_all(&[&len.to_be_bytes(), question].concat())?;
    let mut len = [0; 2];
    read_until(&mut stream, &mut len, deadline)?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    read_until(&mut stream, &mut answer, deadline)?;
    Ok(answer)
}

/// Fills `buffer`, however slowly it comes, or until the deadline.
fn read_until(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut at = 0;
    while at < buffer.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer[at..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => at += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeError;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, SRV};
    use std::net::TcpListener;
    use std::thread;

    const NAME: &str = "_memcache._tcp.cache.example";

    /// An answer to `question`: a record for each priority, weight, port and target.
    fn answer(question: &[u8], records: &[(u16, u16, u16, &str)]) -> Vec<u8> {
        let asked = Packet::parse(question).unwrap();
        assert_eq!(asked.questions[0].qname.to_string(), NAME);
        let mut packet = Packet::new_reply(asked.id());
        for &(priority, weight, port, target) in records {
            let target = Name::new(target).unwrap();
            let srv = RData::SRV(SRV {
                priority,
                weight,
                port,
                target,
            });
            packet.answers.push(ResourceRecord::new(
                Name::new(NAME).unwrap(),
                CLASS::IN,
                60,
                srv,
            ));
        }
        // Records that were not asked for are no nodes.
        let address = RData::A(A { address: 1 });
        packet.answers.push(ResourceRecord::new(
            Name::new("a.example").unwrap(),
            CLASS::IN,
            60,
            address,
        ));
        packet.build_bytes_vec().unwrap()
    }

    fn nodes_of(records: &[(u16, u16, u16, &str)]) -> Vec<String> {
        let question = question(NAME, 7).unwrap();
        let nodes = parse_services(&answer(&question, records), 7)
            .unwrap()
            .unwrap();
        nodes.iter().map(Node::to_string).collect()
    }

    #[test]
    fn records_are_nodes() {
        assert_eq!(
            nodes_of(&[
                (1, 6, 11211, "b.example"),
                (1, 4, 11212, "a.example"),
                (1, 4, 11211, "a.example")
            ]),
            [
                "a.example:11211:2",
                "a.example:11212:2",
                "b.example:11211:3"
            ]
        );
        // Equal weights are no weights, whatever they are.
        for weight in [0, 1, 33] {
            let records = [
                (0, weight, 1, "b"),
                (0, weight, 1, "a"),
                (0, weight, 1, "b"),
            ];
            assert_eq!(nodes_of(&records), ["a:1", "b:1"]);
        }
        assert_eq!(
            nodes_of(&[(20, 1, 1, "backup"), (10, 1, 1, "first")]),
            ["first:1"]
        );
        assert!(nodes_of(&[]).is_empty());
        assert!(nodes_of(&[(0, 0, 0, "")]).is_empty());
    }

    #[test]
    fn what_is_no_answer() {
        let question = question(NAME, 7).unwrap();
        assert!(matches!(
            parse_services(&question, 7),
            Err(SourceError::Malformed)
        ));
        assert!(matches!(
            parse_services(&answer(&question, &[]), 8),
            Err(SourceError::Malformed)
        ));
        assert!(matches!(
            parse_services(b"x", 7),
            Err(SourceError::Malformed)
        ));
        let port_0 = answer(&question, &[(0, 0, 0, "a")]);
        assert!(matches!(
            parse_services(&port_0, 7),
            Err(SourceError::Node { at: 1, .. })
        ));
        // What a name server says is a host and no more: no socket of this machine, no weight, no name.
        for target in ["/run/m", "a=b", "a@z"] {
            let error = parse_services(&answer(&question, &[(1, 1, 1, target)]), 7).unwrap_err();
            let told = NodeError::HostByte;
            assert!(
                matches!(error, SourceError::Node { at: 1, error } if error == told),
                "{target}: {error}"
            );
        }
        let whole = answer(&question, &[(1, 1, 1, "a.example")]);
        for end in 0..whole.len() {
            assert!(parse_services(&whole[..end], 7).is_err(), "{end} bytes");
        }
        assert!(super::question(&"x".repeat(64), 7).is_err());
    }

    #[test]
    fn resolv_conf() {
        let conf = "# mine\nsearch example\nnameserver 10.0.0.1\nnameserver ::1 # six\nnameserver x\nnameserver\n";
        assert_eq!(
            system_servers(conf),
            ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
        assert_eq!(system_servers(""), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(system_servers(&"nameserver 10.0.0.1\n".repeat(9)).len(), 3);
    }

    /// Makes an answer of a question.
    type Answer = fn(&[u8]) -> Vec<u8>;

    /// A name server that answers one datagram with what `by_datagram` makes of it, then a stream likewise.
    fn name_server(by_datagram: Answer, by_stream: Option<Answer>) -> SocketAddr {
        // The port that is free for datagrams may be taken for streams.
        let both = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let listener = TcpListener::bind(socket.local_addr().unwrap());
            listener.ok().map(|listener| (socket, listener))
        };
        let (socket, listener) = (0..100).find_map(|_| both()).expect("a port free for both");
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut question = [0; 512];
            let (n, peer) = socket.recv_from(&mut question).unwrap();
            // A stray datagram first: it is not the answer.
            socket.send_to(b"??", peer).unwrap();
            socket.send_to(&by_datagram(&question[..n]), peer).unwrap();
            let Some(by_stream) = by_stream else { return };
            let (mut stream, _) = listener.accept().unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut question = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut question).unwrap();
            let answer = by_stream(&question);
            stream
                .write_all(&(answer.len() as u16).to_be_bytes())
                .unwrap();
            stream.write_all(&answer).unwrap();
        });
        address
    }

    fn one(question: &[u8]) -> Vec<u8> {
        answer(question, &[(1, 1, 11211, "a.example")])
    }

    fn cut_short(question: &[u8]) -> Vec<u8> {
        let mut packet = Packet::new_reply(Packet::parse(question).unwrap().id());
        packet.set_flags(PacketFlag::TRUNCATION);
        packet.build_bytes_vec().unwrap()
    }

    fn no_such_name(question: &[u8]) -> Vec<u8> {
        let mut packet = Packet::new_reply(Packet::parse(question).unwrap().id());
        *packet.rcode_mut() = RCODE::NameError;
        packet.build_bytes_vec().unwrap()
    }

    fn source(servers: &[SocketAddr]) -> DnsServices {
        let patience = Duration::from_secs(5);
        DnsServices::new(format!("{NAME}."))
            .servers(servers)
            .timeout(patience)
    }

    #[test]
    fn asked_by_datagram_and_by_stream() {
        let by_datagram = name_server(one, None);
        assert_eq!(
            source(&[by_datagram]).nodes().unwrap(),
            [Node::new("a.example", 11211)]
        );
        let by_stream = name_server(cut_short, Some(one));
        assert_eq!(
            source(&[by_stream]).nodes().unwrap(),
            [Node::new("a.example", 11211)]
        );
        let nobody = name_server(no_such_name, None);
        assert!(matches!(
            source(&[nobody]).nodes(),
            Err(SourceError::Dns(3))
        ));
    }

    #[test]
    fn a_server_that_does_not_answer_is_passed_over() {
        // A port that nobody has is refused at once; one that nobody reads from is waited for.
        let refused = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut both = source(&[refused, name_server(one, None)]);
        assert_eq!(both.nodes().unwrap(), [Node::new("a.example", 11211)]);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut alone = source(&[silent.local_addr().unwrap()]);
        alone.timeout = Duration::from_millis(20);
        assert!(matches!(alone.nodes(), Err(SourceError::Io(_))));
    }
}
