//! JSON over HTTP to whichever of the engine's servers answers.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::{ANSWER_BYTES_MAX, Error};

/// How long a server may take to connect and answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The servers of an engine.
#[derive(Debug)]
pub(crate) struct Http {
    line: Line,
    servers: Vec<String>,
    /// The one that answered last.
    at: usize,
}

/// How they are spoken to.
#[derive(Debug)]
struct Line {
    agent: ureq::Agent,
    scheme: &'static str,
    /// Read for each request: it changes while the program runs.
    token: Option<PathBuf>,
}

/// Whom to trust, and who we are. Without either, plain HTTP.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// A file of certificates: TLS with whoever one of them has signed.
    pub(crate) ca: Option<PathBuf>,
    /// A file with a bearer token.
    pub(crate) token: Option<PathBuf>,
}

/// An answer: its body, and one header.
pub(crate) struct Answer {
    pub(crate) json: Value,
    pub(crate) header: Option<String>,
}

impl Http {
    pub(crate) fn new(servers: Vec<String>) -> Self {
        Http::trusting(servers, Trust::default()).expect("nothing is read")
    }

    /// The error says which file cannot be read.
    pub(crate) fn trusting(servers: Vec<String>, trust: Trust) -> Result<Self, String> {
        let mut config = ureq::Agent::config_builder()
            .timeout_connect(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None);
        let scheme = if trust.ca.is_some() { "https" } else { "http" };
        if let Some(ca) = trust.ca {
            let told = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
            let pem = fs::read(&ca).map_err(|error| told(&error))?;
            let mut roots = Vec::new();
            for item in parse_pem(&pem) {
                if let PemItem::Certificate(certificate) = item.map_err(|error| told(&error))? {
                    roots.push(certificate);
                }
            }
            if roots.is_empty() {
                return Err(told(&"no certificate in it"));
            }
            let roots = RootCerts::Specific(Arc::new(roots));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Http {
            line: Line {
                agent: config.build().into(),
                scheme,
                token: trust.token,
            },
            servers,
            at: 0,
        })
    }

    /// Asks one server after the other until one is reached.
    fn ask<T>(&mut self, mut one: impl FnMut(&Line, &str) -> Result<T, Error>) -> Result<T, Error> {
        let mut result = Err(Error::Unreachable("no server".to_owned()));
        for _ in 0..self.servers.len() {
            result = one(&self.line, &self.servers[self.at]);
            match &result {
                Err(Error::Unreachable(_)) => self.at = (self.at + 1) % self.servers.len(),
                _ => break,
            }
        }
        result
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value, Error> {
        self.write(Method::POST, path, body)
    }

    pub(crate) fn put(&mut self, path: &str, body: &Value) -> Result<Value, Error> {
        self.write(Method::PUT, path, body)
    }

    fn write(&mut self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        let body = body.to_string();
        let answer =
            self.ask(|line, server| send(line, method.clone(), server, path, &body, TIMEOUT, ""));
        Ok(answer?.json)
    }

    /// The answer and one of its headers.
    pub(crate) fn get(
        &mut self,
        path: &str,
        at_most: Duration,
        header: &str,
    ) -> Result<Answer, Error> {
        self.ask(|line, server| {
            send(
                line,
                Method::GET,
                server,
                path,
                "",
                at_most + TIMEOUT,
                header,
            )
        })
    }

    /// The objects of an answer that goes on, one a line, until `wanted` says that it has seen enough; `None` if it has not in
    /// that time.
    pub(crate) fn stream<T>(
        &mut self,
        path: &str,
        body: &Value,
        at_most: Duration,
        mut wanted: impl FnMut(Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let body = body.to_string();
        self.ask(|line, server| {
            let (method, body) = (Method::POST, &*body);
            match follow(line, server, (method, path, body), at_most, &mut wanted)? {
                Followed::Ended => Err(Error::Unreachable(format!("{server}: the answer ends"))),
                Followed::Late => Ok(None),
                Followed::Found(found) => Ok(Some(found)),
            }
        })
    }

    /// The same of an answer that is asked for by GET, and may end before.
    pub(crate) fn watch<T>(
        &mut self,
        path: &str,
        at_most: Duration,
        mut wanted: impl FnMut(Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.ask(|line, server| {
            match follow(line, server, (Method::GET, path, ""), at_most, &mut wanted)? {
                Followed::Ended | Followed::Late => Ok(None),
                Followed::Found(found) => Ok(Some(found)),
            }
        })
    }
}

/// How an answer that goes on was left.
enum Followed<T> {
    Ended,
    Late,
    Found(T),
}

fn follow<T>(
    line: &Line,
    server: &str,
    (method, path, body): (Method, &str, &str),
    at_most: Duration,
    wanted: &mut impl FnMut(Value) -> Option<T>,
) -> Result<Followed<T>, Error> {
    let mut response = match line.run(method, server, path, body, at_most)? {
        Ok(response) => response,
        Err(ureq::Error::Timeout(_)) => return Ok(Followed::Late),
        Err(error) => return Err(unreachable(server, error)),
    };
    let status = response.status();
    if status.is_client_error() {
        return Err(Error::Refused(format!("{server}: {status}")));
    }
    let reader = response.body_mut().as_reader().take(ANSWER_BYTES_MAX);
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) => return Ok(Followed::Ended),
            Ok(_) => {}
            Err(error) if is_late(&error) => return Ok(Followed::Late),
            Err(error) => return Err(Error::Unreachable(format!("{server}: {error}"))),
        }
        let json = serde_json::from_str(&line)
            .map_err(|error| Error::Malformed(format!("{server}: {error}")))?;
        if let Some(found) = wanted(json) {
            return Ok(Followed::Found(found));
        }
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
        || error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ureq::Error>())
            .is_some_and(|inner| matches!(inner, ureq::Error::Timeout(_)))
}

fn unreachable(server: &str, error: ureq::Error) -> Error {
    Error::Unreachable(format!("{server}: {error}"))
}

impl Line {
    /// The inner error is the wire's.
    fn run(
        &self,
        method: Method,
        server: &str,
        path: &str,
        body: &str,
        timeout: Duration,
    ) -> Result<Result<ureq::http::Response<ureq::Body>, ureq::Error>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}://{server}{path}", self.scheme))
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            let told = |error| Error::Refused(format!("{}: {error}", token.display()));
            let word = fs::read_to_string(token).map_err(told)?;
            request = request.header("authorization", format!("Bearer {}", word.trim()));
        }
        let request = match request.body(body.to_owned()) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error.into())),
        };
        let request = self.agent.configure_request(request);
        Ok(self
            .agent
            .run(request.timeout_global(Some(timeout)).build()))
    }
}

fn send(
    line: &Line,
    method: Method,
    server: &str,
    path: &str,
    body: &str,
    timeout: Duration,
    header: &str,
) -> Result<Answer, Error> {
    let mut response = line
        .run(method, server, path, body, timeout)?
        .map_err(|error| unreachable(server, error))?;
    let status = response.status();
    // No header has no name.
    let header = (!header.is_empty()).then(|| response.headers().get(header));
    let header = header
        .flatten()
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut text = String::new();
    let reader = response.body_mut().as_reader().take(ANSWER_BYTES_MAX);
    BufReader::new(reader)
        .read_to_string(&mut text)
        .map_err(|error| Error::Unreachable(format!("{server}: {error}")))?;
    if !status.is_success() {
        let text: String = text.trim().chars().take(200).collect();
        let told = Error::Refused(format!("{server}: {status} {text}"));
        // A server without its quorum says so; another may have it.
        return Err(match status.is_server_error() {
            true => Error::Unreachable(format!("{server}: {status} {text}")),
            false => told,
        });
    }
    let json = match text.is_empty() {
        true => Value::Null,
        false => serde_json::from_str(&text)
            .map_err(|error| Error::Malformed(format!("{server}: {error}")))?,
    };
    Ok(Answer { json, header })
}
