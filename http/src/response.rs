//! Replies, and the refusals that the decoder itself gives.

use std::borrow::Cow;
use std::io::Write;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// For instance 200.
    pub status: u16,
    /// For instance `text/plain; charset=utf-8`.
    pub content_type: &'static str,
    /// More headers. Neither names nor values contain line breaks.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// A reply with a body of this type.
    pub fn new(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Response {
            status,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        debug_assert!(!value.contains(['\r', '\n']), "a header is one line");
        self.headers.push((name, value));
        self
    }

    /// Writes the reply. `head_only` answers HEAD: the length of a body that is not sent. `close` says that nothing
    /// follows. `date` is what [`date`] gives.
    pub fn write(&self, head_only: bool, close: bool, date: &str, out: &mut Vec<u8>) {
        let (status, reason) = (self.status, reason(self.status));
        write!(out, "HTTP/1.1 {status} {reason}\r\nDate: {date}\r\n").expect("a Vec takes it");
        if self.status != 204 {
            let (kind, len) = (self.content_type, self.body.len());
            write!(out, "Content-Type: {kind}\r\nContent-Length: {len}\r\n")
                .expect("a Vec takes it");
        }
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n").expect("a Vec takes it");
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !head_only && self.status != 204 {
            out.extend_from_slice(&self.body);
        }
    }
}

/// Why bytes are not a request. After one the connection is answered and closed: where the next request would begin is
/// not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP, or it could be read in two ways. The reason is a sentence for whoever sent it.
    Bad(&'static str),
    /// The head is longer than [`Limits::head_bytes`](crate::Limits), or has more headers than are looked at.
    HeadTooLarge,
    /// The body is longer than [`Limits::body_bytes`](crate::Limits).
    BodyTooLarge,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// `Expect` with something else than `100-continue`.
    UnknownExpectation,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
}

impl Refusal {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Bad(_) => 400,
            Refusal::HeadTooLarge => 431,
            Refusal::BodyTooLarge => 413,
            Refusal::UnknownCoding => 501,
            Refusal::UnknownExpectation => 417,
            Refusal::Version => 505,
        }
    }

    /// What was wrong, as a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Bad(reason) => reason,
            Refusal::HeadTooLarge => "the request's head is too large",
            Refusal::BodyTooLarge => "the body is too large",
            Refusal::UnknownCoding => "of transfer codings only chunked is known",
            Refusal::UnknownExpectation => "of expectations only 100-continue is known",
            Refusal::Version => "HTTP/1.1 and HTTP/1.0 are spoken here",
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

const DAY_S: u64 = 24 * 3600;

/// A time for `Date`, in seconds since 1970: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
pub fn date(unix_s: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (mut days, seconds) = (unix_s / DAY_S, unix_s % DAY_S);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days_of = |year| if is_leap(year) { 366 } else { 365 };
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let (day, month) = (days + 1, MONTHS[month]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // From `date -u -R -d @N`.
        for (unix_s, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_102_444_800, "Fri, 01 Jan 2100 00:00:00 GMT"),
        ] {
            assert_eq!(date(unix_s), text);
        }
    }

    #[test]
    fn a_head_says_the_length_of_what_is_not_sent() {
        let response = Response::new(200, "text/plain", b"abc".as_slice()).with("X", "y");
        let written = |head_only, close| {
            let mut out = Vec::new();
            response.write(head_only, close, "D", &mut out);
            String::from_utf8(out).expect("text")
        };
        let head = "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nX: y\r\n";
        assert_eq!(written(false, false), format!("{head}\r\nabc"));
        assert_eq!(
            written(true, true),
            format!("{head}Connection: close\r\n\r\n")
        );
    }
}
