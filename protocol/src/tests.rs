//! Wire vectors: a command line, and what the parser makes of it, one line each.
//!
//! [`check`] feeds every vector whole, cut at each byte, with a bare `\n`, and with another command behind it. An
//! answer is compared as the short text [`show`] makes of it: fields at their default are left out.

mod binary;
mod fuzz;
mod lists;
mod meta;
mod text;

use std::fmt::Write;

use crate::text::parse;
use crate::{BinaryHead, Fault, GetVerb, Parsed, ReplyMode, Request, Skip};

/// A parser's answer in one line, without the count of bytes taken.
fn show(parsed: Parsed<'_>) -> String {
    match parsed {
        Parsed::Complete { request, .. } => show_request(request),
        Parsed::Incomplete => "incomplete".to_string(),
        Parsed::HangUp => "hang up".to_string(),
        Parsed::Invalid {
            error, quiet, skip, ..
        } => {
            let error = match error {
                Fault::Line(error) => format!("{error:?}"),
                Fault::Status(head, status) => format!("{status:?} {}", show_head(head)),
            };
            let quiet = if quiet { " quiet" } else { "" };
            match skip {
                Skip::None => format!("{error}{quiet}"),
                Skip::Bytes(bytes) => format!("{error}{quiet} skip {bytes}"),
                Skip::Line => format!("{error}{quiet} skip line"),
                Skip::All => format!("{error}{quiet} skip all"),
            }
        }
    }
}

fn show_request(request: Request<'_>) -> String {
    let mut line = Line(String::new());
    match request {
        Request::Get(get) => {
            let GetVerb { with_cas, touch } = get.verb;
            line.word(if with_cas { "gets" } else { "get" });
            line.some("touch", touch);
            for key in get.keys.iter() {
                line.text("key", key);
            }
            line.flag("unfinished", !get.last);
        }
        Request::Store(store) => {
            line.word(&format!("{:?}", store.mode));
            line.key(store.key);
            write!(
                line.0,
                " flags={} exptime={}",
                store.client_flags, store.exptime
            )
            .unwrap();
            write!(line.0, " len={}", store.value_len).unwrap();
            line.some("compare", store.compare_cas);
            line.some("new", store.new_cas);
            line.flag("invalidate", store.invalidate);
            line.some("vivify", store.vivify);
            line.reply(store.reply);
        }
        Request::Delete(delete) => {
            line.word("delete");
            line.key(delete.key);
            line.some("compare", delete.compare_cas);
            line.some("new", delete.new_cas);
            line.flag("invalidate", delete.invalidate);
            line.some("touch", delete.touch);
            line.flag("drop_value", delete.drop_value);
            line.some(
                "flags",
                (delete.client_flags != 0).then_some(delete.client_flags),
            );
            line.reply(delete.reply);
        }
        Request::Arith(arith) => {
            line.word(if arith.decrement { "decr" } else { "incr" });
            line.key(arith.key);
            write!(line.0, " delta={}", arith.delta).unwrap();
            line.some("vivify", arith.vivify);
            line.some("initial", (arith.initial != 0).then_some(arith.initial));
            line.some("touch", arith.touch);
            line.some("compare", arith.compare_cas);
            line.some("new", arith.new_cas);
            line.flag("value", arith.want_value);
            line.reply(arith.reply);
        }
        Request::Touch(touch) => {
            line.word("touch");
            line.key(touch.key);
            line.some("exptime", Some(touch.exptime));
            line.flag("noreply", touch.noreply);
        }
        Request::MetaGet(get) => {
            line.word("mg");
            line.key(get.key);
            line.flag("value", get.want_value);
            line.flag("no_bump", get.no_bump);
            line.some("touch", get.touch);
            line.some("vivify", get.vivify);
            line.some("recache", get.recache);
            line.some("new", get.new_cas);
            line.some("known", get.known_cas);
            line.reply(ReplyMode::Meta(get.tokens));
        }
        Request::MetaDebug(key) => {
            line.word("me");
            line.key(key);
        }
        Request::MetaNoop => line.word("mn"),
        Request::Admin(admin) => {
            line.word(&format!("{:?}", admin.verb));
            for arg in admin.args.iter() {
                line.text("arg", arg);
            }
            line.flag("noreply", admin.noreply);
        }
        Request::BinaryGet(get) => {
            line.word("get");
            line.key(get.key);
            line.some("touch", get.touch);
            line.flag("value", get.want_value);
            line.flag("want_key", get.want_key);
            line.reply(ReplyMode::Binary(get.head));
        }
        Request::BinaryAdmin(admin) => {
            line.word(&format!("{:?}", admin.verb));
            line.reply(ReplyMode::Binary(admin.head));
        }
        Request::ConfigSet(set) => {
            line.word(if set.add { "config add" } else { "config set" });
            line.text("name", set.name);
            write!(line.0, " flags={} len={}", set.client_flags, set.value_len).unwrap();
            line.flag("noreply", set.noreply);
        }
        Request::Sasl(sasl) => {
            line.word(&format!("{:?}", sasl.verb));
            line.text("mechanism", sasl.mechanism);
            line.some("len", Some(sasl.body_len));
            line.reply(ReplyMode::Binary(sasl.head));
        }
    }
    line.0
}

fn show_head(head: BinaryHead) -> String {
    let quiet = if head.quiet { " quiet" } else { "" };
    format!("[{:02x} {:x}{quiet}]", head.opcode, head.opaque)
}

/// A line under construction for [`show`].
struct Line(String);

impl Line {
    fn word(&mut self, word: &str) {
        self.0.push_str(word);
    }

    fn text(&mut self, name: &str, text: &[u8]) {
        write!(self.0, " {name}={}", text.escape_ascii()).unwrap();
    }

    fn key(&mut self, key: crate::Key<'_>) {
        self.text(if key.base64 { "key64" } else { "key" }, key.text);
    }

    fn some(&mut self, name: &str, number: Option<impl std::fmt::Display>) {
        if let Some(number) = number {
            write!(self.0, " {name}={number}").unwrap();
        }
    }

    fn flag(&mut self, name: &str, set: bool) {
        if set {
            write!(self.0, " {name}").unwrap();
        }
    }

    fn reply(&mut self, reply: ReplyMode<'_>) {
        match reply {
            ReplyMode::Text => {}
            ReplyMode::NoReply => self.0.push_str(" noreply"),
            ReplyMode::Meta(tokens) => {
                write!(self.0, " ({})", tokens.text.escape_ascii()).unwrap();
                self.flag("quiet", tokens.quiet);
            }
            ReplyMode::Binary(head) => {
                self.0.push(' ');
                self.word(&show_head(head));
            }
        }
    }
}

/// How many bytes an answer takes.
fn consumed(parsed: Parsed<'_>) -> usize {
    match parsed {
        Parsed::Complete { consumed, .. } | Parsed::Invalid { consumed, .. } => consumed,
        Parsed::Incomplete | Parsed::HangUp => 0,
    }
}

/// Feeds a line, given without its end, in every way there is; all of them must give `answer`.
fn check(line: impl AsRef<[u8]>, answer: &str) {
    let line = line.as_ref();
    for end in [&b"\r\n"[..], b"\n"] {
        let wire = [line, end].concat();
        let name = wire.escape_ascii();
        let parsed = parse(&wire);
        assert_eq!(show(parsed), answer, "{name}");
        if parsed != Parsed::HangUp {
            assert_eq!(consumed(parsed), wire.len(), "{name}");
        }
        for cut in 0..wire.len() {
            assert_eq!(
                parse(&wire[..cut]),
                Parsed::Incomplete,
                "{name} cut at {cut}"
            );
        }
        let batch = [&wire, &b"mn\r\n"[..]].concat();
        assert_eq!(parse(&batch), parsed, "{name} with a command behind it");
        if parsed != Parsed::HangUp {
            assert_eq!(
                show(parse(&batch[consumed(parsed)..])),
                "mn",
                "behind {name}"
            );
        }
    }
}

fn check_all(vectors: &[(&str, &str)]) {
    for (line, answer) in vectors {
        check(line, answer);
    }
}
