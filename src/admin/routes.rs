//! Which path is whose, and who may.
//!
//! | path | who may | what |
//! | --- | --- | --- |
//! | `/health`, `/ready`, `/` | anybody | whether it answers, whether it takes clients; the page, without a figure |
//! | `/metrics`, `/stats.json` | with the token, if there is one | figures |
//! | `/get`, `/set`, `/delete`, `/KEY` | with the token, if there is one | keys |

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use ketch_http::{Limits, Method, Request, Response};

use super::figures::Figures;
use super::insight::Insight;
use super::metrics::{self, Process};
use super::{json, keys};
use crate::settings::Settings;
use crate::state::Shared;

/// Bytes of a request's head. A browser sends a few hundred.
const HEAD_BYTES: usize = 16 << 10;
/// Bytes of a body on top of twice the largest item: JSON writes a byte in one to six characters.
const BODY_EXTRA_BYTES: usize = 4 << 10;
/// Of a file with a token, so many bytes may be one.
const TOKEN_BYTES_MAX: usize = 4 << 10;

/// The page at `/`.
static PAGE: &str = include_str!("page.html");

/// What requests are held against.
#[derive(Debug)]
pub(super) struct Routes {
    token: Option<Vec<u8>>,
    limits: Limits,
}

impl Routes {
    /// Reads the token's file. The error names it.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let token = match &settings.http.token_file {
            None => None,
            Some(path) => {
                let told = |what: &str| format!("--http-token-file {}: {what}", path.display());
                let file = fs::read(path).map_err(|error| told(&error.to_string()))?;
                let token = file.trim_ascii();
                if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
                    return Err(told("must hold one token, a word"));
                }
                if !token.iter().all(u8::is_ascii_graphic) {
                    return Err(told("the token must be of visible ASCII characters"));
                }
                Some(token.to_vec())
            }
        };
        let limits = Limits {
            head_bytes: HEAD_BYTES,
            body_bytes: settings.item_bytes_max * 2 + BODY_EXTRA_BYTES,
        };
        Ok(Routes { token, limits })
    }

    /// What a request may be made of.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Answers a request.
    pub fn answer(&self, shared: &Shared, request: &Request) -> Response {
        if request.has_dot_segments() {
            return json::error(400, "the path has a segment . or ..");
        }
        let is_read = matches!(request.method, Method::Get | Method::Head);
        let only_read = |response: fn(&Shared) -> Response| {
            if is_read {
                response(shared)
            } else {
                not_allowed("GET, HEAD")
            }
        };
        match &request.path[..] {
            "/health" => return only_read(|_| json::ok(&serde_json::json!({"status": "ok"}))),
            "/ready" => return only_read(ready),
            "/" => return only_read(|_| page()),
            _ => {}
        }
        if !self.lets_in(request) {
            return json::error(401, "a token is asked for: Authorization: Bearer TOKEN")
                .with("WWW-Authenticate", "Bearer realm=\"ketch\"");
        }
        if is_foreign(request) {
            return json::error(403, "a page of another origin has no say here");
        }
        match &request.path[..] {
            "/metrics" => only_read(metrics),
            "/stats.json" => only_read(stats),
            path => keys::answer(shared, request, path),
        }
    }

    fn lets_in(&self, request: &Request) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = request.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then_some(token.trim_ascii())
        });
        given.is_some_and(|given| is_same(given, token))
    }
}

/// Whether two secrets are the same, in a time that does not depend on where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differ = given.iter().zip(token).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differ) == 0 && given.len() == token.len()
}

/// Whether a browser sends it for a page that came from elsewhere.
fn is_foreign(request: &Request) -> bool {
    let Some(origin) = request.header("origin") else {
        return request.header("sec-fetch-site") == Some(b"cross-site");
    };
    let host = request.header("host").unwrap_or_default();
    let of = |scheme: &[u8]| origin.strip_prefix(scheme).is_some_and(|rest| rest == host);
    !of(b"http://") && !of(b"https://")
}

fn not_allowed(allowed: &'static str) -> Response {
    json::error(405, "this path does not know that method").with("Allow", allowed)
}

fn ready(shared: &Shared) -> Response {
    if shared.connections.counts.accepting_conns.load(Relaxed) > 0 {
        json::ok(&serde_json::json!({"status": "ready"}))
    } else {
        json::error(503, "no clients are let in now")
    }
}

fn page() -> Response {
    Response::new(200, "text/html; charset=utf-8", PAGE.as_bytes())
        .with("Cache-Control", "no-cache")
        .with(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
}

fn metrics(shared: &Shared) -> Response {
    let (figures, insight) = (Figures::read(shared), Insight::read(shared));
    let text = metrics::write(&figures, &insight, &Process::read(shared));
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Response::new(200, kind, text.into_bytes())
}

fn stats(shared: &Shared) -> Response {
    let (figures, insight) = (Figures::read(shared), Insight::read(shared));
    json::ok(&json::stats(&figures, &insight)).with("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
        Request {
            method: Method::Get,
            path: "/metrics".into(),
            query: String::new(),
            headers: headers.iter().map(own).collect(),
            body: Vec::new(),
            keep_alive: true,
        }
    }

    #[test]
    fn tokens() {
        let limits = Limits {
            head_bytes: 1,
            body_bytes: 1,
        };
        let routes = Routes {
            token: Some(b"secret".to_vec()),
            limits,
        };
        for (value, lets_in) in [
            ("Bearer secret", true),
            ("bearer  secret", true),
            ("Bearer secre", false),
            ("Bearer secrets", false),
            ("Bearer ", false),
            ("secret", false),
            ("Basic secret", false),
        ] {
            let request = request(&[("authorization", value)]);
            assert_eq!(routes.lets_in(&request), lets_in, "{value:?}");
        }
        assert!(!routes.lets_in(&request(&[])));
    }

    #[test]
    fn pages_of_other_origins_are_told_apart() {
        let host = ("host", "127.0.0.1:9100");
        let foreign = |headers: &[(&str, &str)]| is_foreign(&request(headers));
        assert!(!foreign(&[host]));
        assert!(!foreign(&[host, ("origin", "http://127.0.0.1:9100")]));
        assert!(foreign(&[host, ("origin", "http://evil.example")]));
        assert!(foreign(&[host, ("origin", "null")]));
        assert!(foreign(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!foreign(&[host, ("sec-fetch-site", "same-origin")]));
    }
}
