//! Requests as operations of the client's core: where a key has copies, its nodes have just changed, or its route leads to several pools.
//!
//! What the core has no operation for (a meta command with flags such as `I` or `h`) is asked of the node that decides for the key;
//! where that changes something, the other copies are deleted, so that they are read anew.

mod all_nodes;
mod answers;
mod ask;
mod changes;
mod found;
mod guided;
mod reads;
mod serving;

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use protocol::{
    BinaryHead, ErrorLine, GetVerb, KeyBuf, Keys, Parsed, ReplyMode, Request, binary, reply, text,
};

use self::all_nodes::with_sums;
pub(super) use self::answers::is_no_reply;
use self::answers::{Out, refuse};
pub(super) use self::guided::changes_something;
use self::guided::is_asked;
use self::serving::{Said, Serving};
use super::carry::{Over, Seat};
use super::course::Course;
use crate::command::Output;

/// What a client asks for, as it outlives the buffer it was read into.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// A whole request, with its data block.
    Text(Bytes),
    Packet(Bytes),
    /// A list of keys, or a piece of it.
    Keys {
        verb: GetVerb,
        keys: Bytes,
        is_last: bool,
    },
    /// To delete a key, whoever asked.
    Delete(Bytes),
    /// To all nodes of these pools too: this line, which empties them. A packet with this head asked for it.
    Flush {
        line: Bytes,
        others: Vec<Over>,
        head: Option<BinaryHead>,
        replies: bool,
    },
    /// What all nodes of these pools count together, in the place of what `own` says of that; as packets, if one asked.
    Stats {
        own: Vec<(String, String)>,
        /// Of a group only what nodes say, one after the other.
        group: Option<String>,
        others: Vec<Over>,
        head: Option<BinaryHead>,
    },
}

impl Job {
    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        match self {
            Job::Text(bytes) | Job::Packet(bytes) | Job::Delete(bytes) => bytes.len(),
            Job::Keys { keys, .. } => keys.len(),
            Job::Flush { line, .. } => line.len(),
            Job::Stats { .. } => 0,
        }
    }
}

/// Does what a client asks for; gives its reply.
pub(super) async fn serve(seat: Rc<Seat>, course: Course, job: Job) -> Output<'static> {
    let mut out = Output::new();
    let said = Cell::new(Said::Done);
    let serving = Serving {
        seat: &seat,
        course: &course,
        over: &course.main,
        ttl_max: None,
        said: &said,
    };
    match job {
        Job::Keys {
            verb,
            keys,
            is_last,
        } => serving.get(verb, Keys(&keys), is_last, &mut out).await,
        Job::Flush {
            line,
            others,
            head,
            replies,
        } => {
            let mut result = serving.flush(line.clone()).await;
            for over in &others {
                result = result.and(serving.at(over).flush(line.clone()).await);
            }
            match (result, head) {
                _ if !replies => {}
                (Ok(()), None) => out.bytes(reply::OK),
                (Ok(()), Some(head)) if head.quiet => {}
                (Ok(()), Some(head)) => binary::ok(&mut out.buf, head, 0),
                (Err(error), None) => refuse(&mut out, ReplyMode::Text, &error),
                (Err(error), Some(head)) => refuse(&mut out, ReplyMode::Binary(head), &error),
            }
        }
        Job::Stats {
            own,
            group,
            others,
            head,
        } => {
            let line = format!("stats {}\r\n", group.as_deref().unwrap_or_default());
            let line = Bytes::from(line.replace(" \r", "\r"));
            let mut said = serving.stats(line.clone()).await;
            for over in &others {
                said.extend(serving.at(over).stats(line.clone()).await);
            }
            let figures = match group {
                Some(_) => said,
                None => with_sums(own, &said),
            };
            for (key, value) in &figures {
                match head {
                    None => reply::stat(&mut out.buf, key, value),
                    Some(head) => {
                        binary::stat(&mut out.buf, head, key.as_bytes(), value.as_bytes());
                    }
                }
            }
            match head {
                None => out.bytes(reply::END),
                Some(head) => binary::stat_end(&mut out.buf, head),
            }
        }
        Job::Delete(key) => serving.forget(&key).await,
        Job::Text(bytes) => {
            let parsed = text::parse(&bytes);
            serving.request(parsed, &bytes, &mut out).await;
        }
        Job::Packet(bytes) => {
            let parsed = binary::parse(&bytes);
            serving.request(parsed, &bytes, &mut out).await;
        }
    }
    out
}

impl Serving<'_> {
    async fn request(&self, parsed: Parsed<'_>, bytes: &Bytes, out: &mut Out) {
        let Parsed::Complete { request, consumed } = parsed else {
            // It was whole before.
            return out.error(ErrorLine::Backend);
        };
        let block = bytes.slice(consumed..);
        let mut room = KeyBuf::default();
        match request {
            Request::Get(get) => self.get(get.verb, get.keys, get.last, out).await,
            Request::BinaryGet(get) => self.binary_get(&get, out).await,
            Request::MetaGet(get) if !is_asked(&get) => {
                self.meta_get(&get, get.key.bytes(&mut room), out).await;
            }
            Request::Store(store) => {
                let value = block.slice(..store.value_len as usize);
                let key = store.key.bytes(&mut room);
                self.change(&request, key, value, out).await;
            }
            Request::Delete(_) | Request::Arith(_) | Request::Touch(_) | Request::MetaGet(_) => {
                if let Some(key) = request.key() {
                    let key = key.bytes(&mut room);
                    self.change(&request, key, Bytes::new(), out).await;
                }
            }
            // No other comes here.
            _ => out.error(ErrorLine::Backend),
        }
    }
}
