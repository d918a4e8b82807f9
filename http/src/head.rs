//! The head of a request: its line and its headers.

use crate::request::{Method, Request};
use crate::response::Refusal;

/// Headers looked at. A browser sends some 20.
const HEADERS_MAX: usize = 64;

/// How the body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked,
}

/// What a head says.
#[derive(Debug)]
pub(crate) struct Head {
    pub request: Request,
    pub framing: Framing,
    /// The peer waits for "100 Continue" before it sends its body.
    pub expects_continue: bool,
}

/// Reads a whole head, from the request line to the empty line.
pub(crate) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut room);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        // The empty line was there, so more bytes would not help.
        Ok(httparse::Status::Partial) => return Err(Refusal::Bad("the request is not HTTP")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(version(bytes)),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(Refusal::Bad("a header is malformed"));
        }
        Err(_) => return Err(Refusal::Bad("the request line is malformed")),
    }
    let is_1_1 = parsed.version == Some(1);
    let headers: Vec<(String, Vec<u8>)> = parsed
        .headers
        .iter()
        .map(|header| {
            let value = header.value.trim_ascii().to_vec();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let (path, query) = target(parsed.path.unwrap_or_default())?;
    let framing = framing(&headers, is_1_1)?;
    let hosts = headers.iter().filter(|(name, _)| name == "host").count();
    if hosts > 1 || (hosts == 0 && is_1_1) {
        return Err(Refusal::Bad("there must be one Host header"));
    }
    let expects_continue = match headers.iter().find(|(name, _)| name == "expect") {
        // RFC 9110, 10.1.1: from an HTTP/1.0 client it is ignored.
        Some((_, value)) if is_1_1 => {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::UnknownExpectation);
            }
            true
        }
        _ => false,
    };
    let connection = |token: &str| has_token(&headers, "connection", token);
    let keep_alive = !connection("close") && (is_1_1 || connection("keep-alive"));
    Ok(Head {
        request: Request {
            method: Method::from_token(parsed.method.unwrap_or_default()),
            path,
            query,
            headers,
            body: Vec::new(),
            keep_alive,
        },
        framing,
        expects_continue,
    })
}

/// A version that is not known, or none at all.
fn version(head: &[u8]) -> Refusal {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.trim_ascii().split(|&byte| byte == b' ');
    match words.nth(2) {
        Some(word) if word.starts_with(b"HTTP/") => Refusal::Version,
        _ => Refusal::Bad("the request line is malformed"),
    }
}

/// Path and query of a request's target (RFC 9112, 3.2).
fn target(target: &str) -> Result<(String, String), Refusal> {
    // The form that proxies are asked in names the scheme and the host first.
    let path = if target.starts_with('/') {
        target
    } else {
        let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| lower.starts_with(scheme));
        let Some(scheme) = scheme else {
            return Err(Refusal::Bad("the target must be a path"));
        };
        let rest = &target[scheme.len()..];
        match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => &rest[at..],
            _ => "/",
        }
    };
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Ok((path.to_owned(), query.to_owned()))
}

fn framing(headers: &[(String, Vec<u8>)], is_1_1: bool) -> Result<Framing, Refusal> {
    let of = |wanted: &'static str| headers.iter().filter(move |(name, _)| name == wanted);
    let mut length = None;
    for (_, value) in of("content-length") {
        let bad = Refusal::Bad("Content-Length must be one number");
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(bad);
        }
        let text = str::from_utf8(value).map_err(|_| bad)?;
        // More digits than a number has: longer than any limit.
        let told = text.parse::<u64>().unwrap_or(u64::MAX);
        if length.is_some_and(|before| before != told) {
            return Err(bad);
        }
        length = Some(told);
    }
    let mut codings = of("transfer-encoding");
    let Some((_, coding)) = codings.next() else {
        return Ok(Framing::Length(length.unwrap_or(0)));
    };
    // RFC 9112, 6.1: what has both is how requests are smuggled past a proxy.
    if length.is_some() || !is_1_1 {
        return Err(Refusal::Bad(
            "Transfer-Encoding goes with HTTP/1.1 and without Content-Length",
        ));
    }
    if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::UnknownCoding);
    }
    Ok(Framing::Chunked)
}

/// Whether a header that is a list has this word.
fn has_token(headers: &[(String, Vec<u8>)], name: &str, token: &str) -> bool {
    headers
        .iter()
        .filter(|(known, _)| known == name)
        .flat_map(|(_, value)| value.split(|&byte| byte == b','))
        .any(|word| word.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
