//! The client's methods, as far as both fronts have them in common: arguments to an operation, its outcome to a result.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Operation;
use super::metrics::Op;
use super::operation::{
    Ask, Command, Context, Decision, Entry, ForEachNode, Hit, Lease, Read, Replaced, Together,
    Verdict, ViaDecider, Write,
};
use super::reply::{Meta, Reply};
use super::request::{Count, StoreMode, Wanted, check_key};
use super::routing::Ring;
use crate::error::{Error, Result};
use crate::meta::{MetaOutcome, MetaReply, MetaRequest};
use crate::ttl::Ttl;
use crate::value::{Cas, CasUnique, Item, Payload};

/// An operation and how its outcome becomes a method's result.
pub struct Call<O, F> {
    /// The state machine.
    pub operation: O,
    /// Takes the result out of it.
    pub finish: F,
}

fn call<O: Operation, R, F: FnOnce(O) -> R>(operation: O, finish: F) -> Call<O, F> {
    Call { operation, finish }
}

/// A value and its version.
type Versioned = (Item, CasUnique);

/// One statistic: its name and value.
pub type Stat = (String, String);

/// What comes behind an operation that has [`replaced`](Operation::replaced) something by the ring `old`, while the nodes changed: what a
/// read carries to the new places of the keys meanwhile is older. `context` is of the ring as it is now, and has what is left of the
/// operation's time.
pub fn follow(context: Context, replaced: &Replaced, old: Arc<Ring>) -> Write<'_> {
    Write::following(context, replaced, old)
}

/// What a read of one key found.
fn one<T>(mut results: impl Iterator<Item = Result<T>>) -> Result<T> {
    results.next().unwrap_or(Err(Error::Timeout))
}

fn read<'a>(context: Context, keys: Vec<&'a [u8]>, wanted: Wanted) -> Read<'a> {
    let long = context.options.long_binary_keys;
    let mut faults = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        if let Err(fault) = check_key(key, long) {
            faults.push((at, fault));
        }
    }
    let mut read = Read::new(context, keys, wanted);
    for (at, fault) in faults {
        read.refuse(at, Error::Key(fault));
    }
    read
}

fn write<'a>(context: Context, entries: Vec<Entry<'a>>, command: Command) -> Write<'a> {
    checked(context, entries, |context, entries| {
        Write::new(context, entries, command)
    })
}

fn checked<'a>(
    context: Context,
    entries: Vec<Entry<'a>>,
    begin: impl FnOnce(Context, Vec<Entry<'a>>) -> Write<'a>,
) -> Write<'a> {
    let long = context.options.long_binary_keys;
    let mut faults = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Err(fault) = check_key(entry.key, long) {
            faults.push((at, fault));
        }
    }
    let mut write = begin(context, entries);
    for (at, fault) in faults {
        write.refuse(at, Error::Key(fault));
    }
    write
}

fn decide<'a>(context: Context, entry: Entry<'a>, decision: Decision) -> ViaDecider<'a> {
    let fault = check_key(entry.key, context.options.long_binary_keys);
    let mut decide = ViaDecider::new(context, entry, decision);
    if let Err(fault) = fault {
        decide.refuse(Error::Key(fault));
    }
    decide
}

/// The value of a key.
pub fn get<'a>(
    context: Context,
    key: &'a [u8],
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Result<Option<Item>>> {
    call(read(context, vec![key], Wanted::default()), |read| {
        Ok(one(read.finish())?.map(|hit| hit.item))
    })
}

/// The value of a key, with what `cas` compares.
pub fn gets<'a>(
    context: Context,
    key: &'a [u8],
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Result<Option<Versioned>>> {
    let ring = context.ring.clone();
    let wanted = Wanted {
        cas: true,
        ..Wanted::default()
    };
    call(read(context.of_decider(), vec![key], wanted), move |read| {
        let found = one(read.finish())?;
        Ok(found.map(
            |Hit {
                 item, cas, node, ..
             }| {
                let node = ring.members[node].identity;
                (item, CasUnique { number: cas, node })
            },
        ))
    })
}

/// The value of a key, whose time to live becomes `ttl` on all copies.
pub fn get_and_touch<'a>(
    context: Context,
    key: &'a [u8],
    ttl: impl Into<Ttl>,
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Result<Option<Item>>> {
    let wanted = Wanted {
        touch: Some(ttl.into().exptime(context.unix_s)),
        ..Wanted::default()
    };
    call(read(context, vec![key], wanted), |read| {
        Ok(one(read.finish())?.map(|hit| hit.item))
    })
}

/// As `gets`, of many keys.
pub fn gets_multi<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Vec<Result<Option<Versioned>>>> {
    let ring = context.ring.clone();
    let wanted = Wanted {
        cas: true,
        ..Wanted::default()
    };
    call(read(context.of_decider(), keys, wanted), move |read| {
        let versioned = |hit: Hit| {
            let node = ring.members[hit.node].identity;
            let number = hit.cas;
            (hit.item, CasUnique { number, node })
        };
        let results = read.finish();
        results.map(|found| Ok(found?.map(versioned))).collect()
    })
}

/// The values of keys, in their order; their time to live becomes `ttl`.
pub fn get_and_touch_multi<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
    ttl: Ttl,
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Vec<Result<Option<Item>>>> {
    let wanted = Wanted {
        touch: Some(ttl.exptime(context.unix_s)),
        ..Wanted::default()
    };
    call(read(context, keys, wanted), |read| {
        let results = read.finish();
        results
            .map(|found| Ok(found?.map(|hit| hit.item)))
            .collect()
    })
}

/// The values of keys, in their order.
pub fn get_multi<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Vec<Result<Option<Item>>>> {
    call(read(context, keys, Wanted::default()), |read| {
        let results = read.finish();
        results
            .map(|found| Ok(found?.map(|hit| hit.item)))
            .collect()
    })
}

/// Values with the seconds they have left, -1 without end.
type Timed = Vec<Result<Option<(Item, i64, CasUnique)>>>;

/// As `get_multi`, with the time that is left, and the node that gave it; with its version, if that is wanted.
pub fn get_with_ttl<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
    versions: bool,
) -> Call<Read<'a>, impl FnOnce(Read<'a>) -> Timed> {
    let ring = context.ring.clone();
    let wanted = Wanted {
        ttl: true,
        cas: versions,
        ..Wanted::default()
    };
    call(read(context, keys, wanted), move |read| {
        let timed = |hit: Hit| {
            let node = ring.members[hit.node].identity;
            let number = hit.cas;
            (hit.item, hit.ttl.unwrap_or(0), CasUnique { number, node })
        };
        let results = read.finish();
        results.map(|found| Ok(found?.map(timed))).collect()
    })
}

/// What is there, and its version.
type Leased = Result<Option<(Meta, CasUnique)>>;

/// A read that may win the right to load.
pub fn lease<'a>(
    context: Context,
    key: &'a [u8],
    lease_s: i32,
    recache_s: i32,
) -> Call<Ask<Lease<'a>>, impl FnOnce(Ask<Lease<'a>>) -> Leased> {
    let ring = context.ring.clone();
    let fault = check_key(key, context.options.long_binary_keys);
    let (lease, fault) = (
        Lease::new(key, lease_s, recache_s),
        fault.err().map(Error::Key),
    );
    call(Ask::new(context, lease, fault), move |ask| {
        Ok(match ask.finish()? {
            (Reply::Ok(meta), node) => {
                let (number, node) = (meta.cas, ring.members[node].identity);
                Some((meta, CasUnique { number, node }))
            }
            // No node says so that knows `N`.
            _ => None,
        })
    })
}

/// Deletes `key` on the node of `unique`, if it still has that version.
pub fn delete_if<'a>(
    context: Context,
    key: &'a [u8],
    unique: CasUnique,
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Result<bool>> {
    let compare = Some(unique.number);
    let mut members = context.ring.members.iter();
    let node = members.position(|member| member.identity == unique.node);
    let command = Command::Delete { compare };
    let mut write = Write::only(context, Entry::key(key), command, node.unwrap_or(0));
    if node.is_none() {
        write.refuse(0, Error::NoNode);
    }
    call(write, |write| {
        one(write.finish()).map(|written| written.done)
    })
}

/// Stores a value on all copies.
pub fn set<'a>(
    context: Context,
    key: &'a [u8],
    value: Payload<'a>,
    ttl: impl Into<Ttl>,
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Result<()>> {
    let command = Command::Store {
        mode: StoreMode::Set,
        exptime: ttl.into().exptime(context.unix_s),
    };
    call(
        write(context, vec![Entry { key, value }], command),
        |write| one(write.finish()).map(|_| ()),
    )
}

/// Stores values, each on all its copies; results in their order.
pub fn set_multi<'a>(
    context: Context,
    entries: Vec<Entry<'a>>,
    ttl: impl Into<Ttl>,
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Vec<Result<()>>> {
    let command = Command::Store {
        mode: StoreMode::Set,
        exptime: ttl.into().exptime(context.unix_s),
    };
    call(write(context, entries, command), |write| {
        write.finish().map(|result| result.map(|_| ())).collect()
    })
}

/// Stores entries with a time to live each; the results tell whether a copy took them.
pub fn fill_multi<'a>(
    context: Context,
    entries: Vec<(Entry<'a>, Ttl)>,
    mode: StoreMode,
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Vec<Result<bool>>> {
    let unix_s = context.unix_s;
    let (entries, exptimes) = entries
        .into_iter()
        .map(|(entry, ttl)| (entry, ttl.exptime(unix_s)))
        .unzip();
    let write = checked(context, entries, |context, entries| {
        Write::each_until(context, entries, mode, exptimes)
    });
    call(write, |write| {
        let results = write.finish();
        results
            .map(|result| result.map(|written| written.done))
            .collect()
    })
}

/// Deletes a key on all copies: true if one had it.
pub fn delete<'a>(
    context: Context,
    key: &'a [u8],
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Result<bool>> {
    let command = Command::Delete { compare: None };
    call(write(context, vec![Entry::key(key)], command), |write| {
        one(write.finish()).map(|written| written.done)
    })
}

/// Deletes keys, each on all its copies; results in their order.
pub fn delete_multi<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Vec<Result<bool>>> {
    let entries = keys.into_iter().map(Entry::key).collect();
    let command = Command::Delete { compare: None };
    call(write(context, entries, command), |write| {
        let results = write.finish();
        results
            .map(|result| result.map(|written| written.done))
            .collect()
    })
}

/// add, replace, append, prepend.
pub fn store<'a>(
    context: Context,
    key: &'a [u8],
    value: Payload<'a>,
    mode: StoreMode,
    ttl: impl Into<Ttl>,
) -> Call<ViaDecider<'a>, impl FnOnce(ViaDecider<'a>) -> Result<bool>> {
    let exptime = ttl.into().exptime(context.unix_s);
    let decision = Decision::Store { mode, exptime };
    call(decide(context, Entry { key, value }, decision), |decide| {
        Ok(matches!(decide.finish()?, Verdict::Done(_)))
    })
}

/// Stores a value if the key still has the one that `unique` came with.
pub fn cas<'a>(
    context: Context,
    key: &'a [u8],
    value: Payload<'a>,
    unique: CasUnique,
    ttl: impl Into<Ttl>,
) -> Call<ViaDecider<'a>, impl FnOnce(ViaDecider<'a>) -> Result<Cas>> {
    let exptime = ttl.into().exptime(context.unix_s);
    let decision = Decision::Cas { unique, exptime };
    call(decide(context, Entry { key, value }, decision), |decide| {
        Ok(match decide.finish()? {
            Verdict::Done(_) => Cas::Stored,
            Verdict::Missing => Cas::Missing,
            Verdict::Exists | Verdict::Conflict => Cas::Conflict,
        })
    })
}

/// Counts up or down by `delta`: the new number, `None` if there is none. `create`: what a missing one begins with, and its time to live.
pub fn count<'a>(
    context: Context,
    key: &'a [u8],
    down: bool,
    delta: u64,
    create: Option<(u64, Option<Duration>)>,
) -> Call<ViaDecider<'a>, impl FnOnce(ViaDecider<'a>) -> Result<Option<u64>>> {
    let create = create.map(|(initial, ttl)| (initial, Ttl::from(ttl).exptime(context.unix_s)));
    let decision = Decision::Count(Count {
        down,
        delta,
        create,
    });
    call(decide(context, Entry::key(key), decision), counted)
}

/// The number, `None` if there is none.
fn counted(decide: ViaDecider<'_>) -> Result<Option<u64>> {
    Ok(match decide.finish()? {
        Verdict::Done(number) => Some(number),
        _ => None,
    })
}

/// Counters that are asked together.
type Counters<'a> = Together<ViaDecider<'a>>;

/// As [`count`], for many keys: one request a node.
pub fn count_multi<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
    down: bool,
    delta: u64,
) -> Call<Counters<'a>, impl FnOnce(Counters<'a>) -> Vec<Result<Option<u64>>>> {
    let decision = Decision::Count(Count {
        down,
        delta,
        create: None,
    });
    let begin = |context, key: &'a [u8]| decide(context, Entry::key(key), decision);
    let all = Together::new(context, Op::Count, keys, begin);
    call(all, |all| all.finish().map(counted).collect())
}

/// Changes a value's time to live: false if there is no value.
pub fn touch<'a>(
    context: Context,
    key: &'a [u8],
    ttl: impl Into<Ttl>,
) -> Call<ViaDecider<'a>, impl FnOnce(ViaDecider<'a>) -> Result<bool>> {
    let exptime = ttl.into().exptime(context.unix_s);
    let decision = Decision::Touch { exptime };
    call(decide(context, Entry::key(key), decision), |decide| {
        Ok(matches!(decide.finish()?, Verdict::Done(_)))
    })
}

/// To all copies of each key at once.
pub fn touch_multi<'a>(
    context: Context,
    keys: Vec<&'a [u8]>,
    ttl: Ttl,
) -> Call<Write<'a>, impl FnOnce(Write<'a>) -> Vec<Result<bool>>> {
    let entries = keys.into_iter().map(Entry::key).collect();
    let exptime = ttl.exptime(context.unix_s);
    call(
        write(context, entries, Command::Touch { exptime }),
        |write| {
            let results = write.finish();
            results
                .map(|result| result.map(|written| written.done))
                .collect()
        },
    )
}

/// A meta command of the caller's.
pub fn meta<'a>(
    context: Context,
    request: &'a MetaRequest,
) -> Call<Ask<&'a MetaRequest>, impl FnOnce(Ask<&'a MetaRequest>) -> Result<MetaReply>> {
    let fault = check_key(&request.key, context.options.long_binary_keys);
    let fault = fault.err().map(Error::Key);
    call(Ask::new(context, request, fault), |ask| {
        Ok(match ask.finish()?.0 {
            Reply::Ok(meta) => request.reply(meta),
            Reply::NotStored => MetaReply::without_item(MetaOutcome::NotStored),
            Reply::Exists => MetaReply::without_item(MetaOutcome::Exists),
            _ => MetaReply::without_item(MetaOutcome::Missing),
        })
    })
}

/// What each node answered, by its name.
pub type PerNode<T> = Vec<(Arc<str>, Result<T>)>;

fn ask<T>(
    context: Context,
    request: Bytes,
    everywhere: bool,
    read: impl Fn(Vec<Bytes>) -> T,
) -> Call<ForEachNode, impl FnOnce(ForEachNode) -> PerNode<T>> {
    call(ForEachNode::new(context, request, everywhere), move |ask| {
        let answers = ask.finish().into_iter();
        answers
            .map(|(name, answer)| (name, answer.map(&read)))
            .collect()
    })
}

/// Empties all nodes, each after `delay`.
pub fn flush_all(
    context: Context,
    delay: Duration,
) -> Call<ForEachNode, impl FnOnce(ForEachNode) -> PerNode<()>> {
    // What is forgotten must not be found where it was before a change of the nodes.
    let request = match Ttl::from(delay).exptime(context.unix_s) {
        0 => Bytes::from_static(b"flush_all\r\n"),
        delay => format!("flush_all {delay}\r\n").into(),
    };
    ask(context, request, true, |_| ())
}

/// What each node is.
pub fn version(context: Context) -> Call<ForEachNode, impl FnOnce(ForEachNode) -> PerNode<String>> {
    let request = Bytes::from_static(b"version\r\n");
    ask(context, request, false, |lines| {
        let line = lines.first().map_or(&b""[..], |line| line);
        let version = line.strip_prefix(b"VERSION ").unwrap_or(line);
        String::from_utf8_lossy(version).into_owned()
    })
}

/// The statistics of each node, of this group (`""` for the general ones).
pub fn stats(
    context: Context,
    group: &str,
) -> Call<ForEachNode, impl FnOnce(ForEachNode) -> PerNode<Vec<Stat>>> {
    // One line, whatever was asked for.
    let group: String = group
        .chars()
        .filter(|letter| !letter.is_control())
        .collect();
    let request = if group.is_empty() {
        "stats\r\n".to_owned()
    } else {
        format!("stats {group}\r\n")
    };
    ask(context, request.into(), false, |lines| {
        let text = lines.iter().map(|line| String::from_utf8_lossy(line));
        text.map(|line| match line.split_once(' ') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (line.into_owned(), String::new()),
        })
        .collect()
    })
}
