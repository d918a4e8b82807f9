//! `--http` and what goes with it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// HTTP for operators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http {
    /// `--http`: where to listen; nowhere if empty.
    pub listen: Vec<SocketAddr>,
    /// `--http-token-file`: the file with the token that is asked for.
    pub token_file: Option<PathBuf>,
    /// `--http-tls`: with TLS, and the certificates of `-Z`.
    pub tls: bool,
}

/// Connections over HTTP that have descriptors of their own, beside the clients of `-c`.
pub const HTTP_CONNS_MAX: usize = 256;

/// The addresses that `HOST:PORT`, `:PORT` or `PORT` stands for; without a host the loopback alone.
pub(super) fn listen(value: &str) -> Result<Vec<SocketAddr>, String> {
    const FORM: &str = "http must be PORT or HOST:PORT, the port 0 to 65535";
    let (host, port) = value.rsplit_once(':').unwrap_or(("", value));
    let is_digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = match port.parse() {
        Ok(port) if is_digits => port,
        _ => return Err(FORM.to_owned()),
    };
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if host.is_empty() {
        return Ok(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]);
    }
    if host == "*" {
        return Ok(vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)]);
    }
    if let Ok(ip) = in_brackets.unwrap_or(host).parse::<IpAddr>() {
        if ip.is_ipv6() && in_brackets.is_none() {
            return Err("an IPv6 address stands in brackets: [::1]:PORT".to_owned());
        }
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if host.contains(':') || in_brackets.is_some() {
        return Err(FORM.to_owned());
    }
    let mut addrs: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: no address: {error}"))?
        .collect();
    addrs.sort_unstable();
    addrs.dedup();
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (value, expected) in [
            ("9100", Some("127.0.0.1:9100")),
            (":9100", Some("127.0.0.1:9100")),
            ("0", Some("127.0.0.1:0")),
            ("*:80", Some("0.0.0.0:80")),
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("::1:80", None),
            ("[::1:80", None),
            ("65536", None),
            ("+1", None),
            ("", None),
            ("a:", None),
            ("[name]:80", None),
        ] {
            let expected = expected.map(|text| vec![text.parse().expect("an address")]);
            assert_eq!(listen(value).ok(), expected, "{value:?}");
        }
        assert!(!listen("localhost:80").expect("a name").is_empty());
    }
}
