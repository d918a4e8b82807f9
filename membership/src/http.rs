//! JSON over HTTP to whichever of the engine's servers answers.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request};

use crate::{ANSWER_BYTES_MAX, Error};

/// How long a server may take to connect and answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The servers of an engine.
#[derive(Debug)]
pub(crate) struct Http {
    agent: ureq::Agent,
    servers: Vec<String>,
    /// The one that answered last.
    at: usize,
}

/// An answer: its body, and one header.
pub(crate) struct Answer {
    pub(crate) json: Value,
    pub(crate) header: Option<String>,
}

impl Http {
    pub(crate) fn new(servers: Vec<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Http {
            agent: config.into(),
            servers,
            at: 0,
        }
    }

    /// Asks one server after the other until one is reached.
    fn ask<T>(
        &mut self,
        mut one: impl FnMut(&ureq::Agent, &str) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut result = Err(Error::Unreachable("no server".to_owned()));
        for _ in 0..self.servers.len() {
            result = one(&self.agent, &self.servers[self.at]);
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
            self.ask(|agent, server| send(agent, method.clone(), server, path, &body, TIMEOUT, ""));
        Ok(answer?.json)
    }

    /// The answer and one of its headers.
    pub(crate) fn get(
        &mut self,
        path: &str,
        at_most: Duration,
        header: &str,
    ) -> Result<Answer, Error> {
        self.ask(|agent, server| {
            send(
                agent,
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
        self.ask(|agent, server| {
            let mut response = match run(agent, Method::POST, server, path, &body, at_most) {
                Ok(response) => response,
                Err(ureq::Error::Timeout(_)) => return Ok(None),
                Err(error) => return Err(unreachable(server, error)),
            };
            let reader = response.body_mut().as_reader().take(ANSWER_BYTES_MAX);
            let mut reader = BufReader::new(reader);
            let mut line = String::new();
            loop {
                line.clear();
                match reader.read_line(&mut line) {
                    Ok(0) => return Err(Error::Unreachable(format!("{server}: the answer ends"))),
                    Ok(_) => {}
                    Err(error) if is_late(&error) => return Ok(None),
                    Err(error) => return Err(Error::Unreachable(format!("{server}: {error}"))),
                }
                let json = serde_json::from_str(&line)
                    .map_err(|error| Error::Malformed(format!("{server}: {error}")))?;
                if let Some(found) = wanted(json) {
                    return Ok(Some(found));
                }
            }
        })
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

fn run(
    agent: &ureq::Agent,
    method: Method,
    server: &str,
    path: &str,
    body: &str,
    timeout: Duration,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{server}{path}"));
    let request = request
        .header("content-type", "application/json")
        .body(body.to_owned())?;
    let request = agent
        .configure_request(request)
        .timeout_global(Some(timeout))
        .build();
    agent.run(request)
}

fn send(
    agent: &ureq::Agent,
    method: Method,
    server: &str,
    path: &str,
    body: &str,
    timeout: Duration,
    header: &str,
) -> Result<Answer, Error> {
    let mut response = run(agent, method, server, path, body, timeout)
        .map_err(|error| unreachable(server, error))?;
    let status = response.status();
    let header = response.headers().get(header);
    let header = header
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
