//! `-l`: where to listen, and what is spoken there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::given::Given;
use super::values::whole;
use super::{ClientCert, Settings, SettingsError};

const NOT_AN_ADDRESS: &str = "address must be HOST[:PORT]";

/// What the connections of a listener may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireProtocol {
    /// The first byte of a connection tells.
    Auto,
    /// Text and meta commands only.
    Ascii,
    /// Binary commands only.
    Binary,
}

impl WireProtocol {
    /// memcached's name of it, in `stats settings` and in its log.
    pub fn name(self) -> &'static str {
        match self {
            WireProtocol::Auto => "auto-negotiate",
            WireProtocol::Ascii => "ascii",
            WireProtocol::Binary => "binary",
        }
    }

    /// The protocol's name in `-B`, and in `proto[..]` of `-l`.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(WireProtocol::Auto),
            "ascii" => Ok(WireProtocol::Ascii),
            "binary" => Ok(WireProtocol::Binary),
            _ => Err("protocol must be ascii, binary or auto".to_owned()),
        }
    }
}

/// One entry of `-l`, resolved. A name can have several addresses, and a machine can be without one of the families:
/// an address that does not exist here (`EADDRNOTAVAIL`, `EAFNOSUPPORT`) may be left out when another one is bound.
/// So may one that is taken, of those that nobody has asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// What to bind; never empty. Port 0 stands for any free port.
    pub addrs: Vec<SocketAddr>,
    /// The addresses are those of a start without `-l`.
    pub is_default: bool,
    /// What its connections may speak.
    pub protocol: WireProtocol,
    /// The name given in `tag[..]`.
    pub tag: Option<String>,
    /// What TLS asks of its clients; `None` is plain text.
    pub tls: Option<ClientCert>,
}

/// The listeners that `-l`, `-s` and one of `-p` and `-U`, which is `port`, ask for together.
pub(super) fn resolve(
    settings: &Settings,
    port: i32,
    given: &[Given],
) -> Result<Vec<Listen>, SettingsError> {
    if settings.unix_socket.is_some() || port == 0 {
        return Ok(Vec::new());
    }
    // -1 leaves the choice to the kernel.
    let port = u16::try_from(port).unwrap_or(0);
    let (mut listen, mut seen) = (Vec::new(), Vec::new());
    for one in given.iter().filter(|one| one.is("listen")) {
        let mut is_empty = true;
        // memcached parts them by semicolons as well, and reads over an empty place.
        let entries = one.value.split([',', ';']).map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            is_empty = false;
            // Given again, it is listened on once.
            if seen.contains(&entry) {
                continue;
            }
            seen.push(entry);
            listen.push(Listen::parse(entry, port, settings).map_err(|reason| {
                // With several in the list, the value alone does not tell which one it was.
                let entry = if entry == one.value {
                    String::new()
                } else {
                    format!("{entry}: ")
                };
                one.error(entry + &reason)
            })?);
        }
        if is_empty {
            return Err(one.error(NOT_AN_ADDRESS));
        }
    }
    if listen.is_empty() {
        let ips: [IpAddr; 2] = match settings.container {
            // Nobody outside of it could connect to its loopback.
            Some(_) => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            None => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        listen.push(Listen {
            addrs: ips.map(|ip| SocketAddr::new(ip, port)).to_vec(),
            is_default: true,
            protocol: settings.protocol,
            tag: None,
            tls: settings.tls.of_listeners(),
        });
    }
    Ok(listen)
}

impl Listen {
    /// `[notls:|btls:|mtls:][proto[NAME]:][tag[NAME]:]HOST[:PORT]`, the words before the host in any order.
    fn parse(entry: &str, port: u16, settings: &Settings) -> Result<Self, String> {
        let mut listen = Listen {
            addrs: Vec::new(),
            is_default: false,
            protocol: settings.protocol,
            tag: None,
            tls: settings.tls.of_listeners(),
        };
        let mut rest = entry;
        loop {
            let own_tls = [
                ("notls:", None),
                ("btls:", Some(ClientCert::Ignored)),
                ("mtls:", Some(ClientCert::Required)),
            ];
            let own_tls = own_tls
                .into_iter()
                .find_map(|(word, tls)| Some((tls, rest.strip_prefix(word)?)));
            if let Some((tls, after)) = own_tls {
                if tls.is_some() && !settings.tls.enabled {
                    return Err("btls: and mtls: need -Z".to_owned());
                }
                (listen.tls, rest) = (tls, after);
            } else if let Some(after) = rest.strip_prefix("proto[") {
                let name;
                (name, rest) = bracketed(after)?;
                listen.protocol = WireProtocol::parse(name)?;
            } else if let Some(after) = rest.strip_prefix("tag[") {
                let name;
                (name, rest) = bracketed(after)?;
                listen.tag = Some(name.to_owned());
            } else {
                break;
            }
        }
        let (host, port) = host_and_port(rest, port)?;
        listen.addrs = addresses(host, port)?;
        Ok(listen)
    }
}

/// What stands before `]:`, and what follows.
fn bracketed(text: &str) -> Result<(&str, &str), String> {
    match text.split_once("]:") {
        Some((name, rest)) if !name.is_empty() => Ok((name, rest)),
        _ => Err("address must be HOST[:PORT], behind proto[NAME]: or tag[NAME]:".to_owned()),
    }
}

/// Splits `HOST:PORT`, `[V6]:PORT`, `HOST`, `[V6]` and a bare `V6`, told by having more than one colon.
fn host_and_port(text: &str, port: u16) -> Result<(&str, u16), String> {
    let (host, own_port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (
            host,
            rest.strip_prefix(':')
                .or((!rest.is_empty()).then_some(rest)),
        ),
        None if text.matches(':').count() == 1 => {
            let (host, port) = text.split_once(':').expect("it has one");
            (host, Some(port))
        }
        None => (text, None),
    };
    if host.is_empty() {
        return Err(NOT_AN_ADDRESS.to_owned());
    }
    let port = own_port.map_or(Ok(port), |own| whole("port", own, 0..=65535, ""))?;
    Ok((host, port))
}

/// Looks up `host`; `*` is every address of the machine.
fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if host == "*" {
        return Ok(vec![
            (Ipv4Addr::UNSPECIFIED, port).into(),
            (Ipv6Addr::UNSPECIFIED, port).into(),
        ]);
    }
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|err| format!("address must be an IP address or a name that resolves ({err})"))?;
    let addrs: Vec<_> = found.collect();
    if addrs.is_empty() {
        return Err("address must be an IP address or a name that resolves".to_owned());
    }
    Ok(addrs)
}
