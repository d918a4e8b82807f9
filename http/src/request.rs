//! A whole request, and what its target says.

use crate::percent;

/// What is to be done. Methods that are none of these are [`Method::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
    Other,
}

impl Method {
    pub(crate) fn from_token(token: &str) -> Self {
        match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "DELETE" => Method::Delete,
            _ => Method::Other,
        }
    }
}

/// A request with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as it came, percent-encoded, from its `/` on.
    pub path: String,
    /// What stood behind the `?`, percent-encoded; empty if there was none.
    pub query: String,
    /// Names in lower case, and values without blanks around them, in the order they came.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, without its chunks' framing.
    pub body: Vec<u8>,
    /// Whether the peer wants to send another request on this connection.
    pub keep_alive: bool,
}

impl Request {
    /// The bytes that the path stands for, without the `/` it begins with. `None` if it is not rightly encoded.
    pub fn decoded_path(&self) -> Option<Vec<u8>> {
        percent::decode(&self.path[1..], false)
    }

    /// True if a segment of the path is `.` or `..`, however it is written. Proxies and clients rewrite such paths, so
    /// that nobody knows what was meant.
    pub fn has_dot_segments(&self) -> bool {
        self.decoded_path().is_some_and(|path| {
            path.split(|&byte| byte == b'/' || byte == b'\\')
                .any(|segment| segment == b"." || segment == b"..")
        })
    }

    /// The value of the query's first parameter of this name, decoded: `Ok(None)` if there is none.
    ///
    /// # Errors
    /// The query is not rightly encoded.
    pub fn parameter(&self, name: &str) -> Result<Option<Vec<u8>>, NotEncoded> {
        for pair in self.query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = percent::decode(key, true).ok_or(NotEncoded)?;
            if key == name.as_bytes() {
                return Ok(Some(percent::decode(value, true).ok_or(NotEncoded)?));
            }
        }
        Ok(None)
    }

    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| &value[..])
    }
}

/// A `%` without two hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotEncoded;
