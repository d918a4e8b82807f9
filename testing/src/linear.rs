//! Whether what several connections saw of one key can be told as one story: linearizability, after Herlihy and Wing ("Linearizability:
//! a correctness condition for concurrent objects", 1990), by the search of Wing and Gong ("Testing and verifying
//! concurrent objects", 1993) with a memory of what led nowhere (Lowe, 2017).

use std::collections::HashSet;

/// The most operations of one history.
pub const OPS_MAX: usize = 64;

/// What is in a key, as the protocol lets a client see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// The numbers of the tokens that it is made of, in their order.
    Tokens(Vec<u32>),
    /// A counter.
    Number(u64),
}

/// A token as bytes: its number, and dots as far as its size among `sizes` goes, each 9 at least.
pub fn token_bytes(token: u32, sizes: &[usize]) -> Vec<u8> {
    let mut bytes = format!("{token:08}").into_bytes();
    bytes.resize(sizes[token as usize % sizes.len()] - 1, b'.');
    bytes.push(b';');
    bytes
}

impl Value {
    /// The value as it is stored, of tokens with these sizes.
    pub fn bytes(&self, sizes: &[usize]) -> Vec<u8> {
        match self {
            Value::Tokens(tokens) => tokens
                .iter()
                .flat_map(|token| token_bytes(*token, sizes))
                .collect(),
            Value::Number(number) => number.to_string().into_bytes(),
        }
    }
}

/// What a client asked for.
#[derive(Debug, Clone)]
pub enum Ask {
    /// `set`, and `ms` without a mode.
    Set(Value),
    /// `add`.
    Add(Value),
    /// `replace`.
    Replace(Value),
    /// `append` of a token.
    Append(u32),
    /// `prepend` of a token.
    Prepend(u32),
    /// `cas` against this unique.
    Cas(Value, u64),
    /// `get`, `gets`, `gat`, `mg`.
    Get,
    /// `touch` with a time that does not run out.
    Touch,
    /// `delete`, `md`.
    Delete,
    /// `incr` by so much.
    Incr(u64),
    /// `decr` by so much.
    Decr(u64),
}

/// What it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Stored, with the new unique if it was told.
    Stored(Option<u64>),
    /// `NOT_STORED`.
    NotStored,
    /// `EXISTS`.
    Exists,
    /// `NOT_FOUND`, or no value.
    Missing,
    /// `DELETED`, `TOUCHED`.
    Done,
    /// Deleted, whether or not the key was there: some copy of it was.
    Gone,
    /// A counter's new value.
    Number(u64),
    /// A value, with its unique if it was told.
    Found(Value, Option<u64>),
    /// Refused for want of memory: nothing was done.
    NoMemory,
    /// None, as the server ended: it was done before that, or never. It returned when its client knew that.
    Unknown,
}

/// One operation as its client saw it.
#[derive(Debug, Clone)]
pub struct Op {
    /// Whose it was: the operations of one client happened in the order of its requests, pipelined or not.
    pub client: usize,
    /// When the request was sent, in nanoseconds of a clock that all share.
    pub called_ns: u64,
    /// When the reply had come.
    pub returned_ns: u64,
    /// The request.
    pub ask: Ask,
    /// The reply.
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Item {
    value: Value,
    /// `None`: nobody was told of it yet.
    unique: Option<u64>,
}

type State = Option<Item>;

fn fresh(value: Value) -> State {
    let unique = None;
    Some(Item { value, unique })
}

/// The state after `op`, if its answer can be that. Where memory is `scarce`, `append` says of an item that cannot grow what it says of
/// one that is not there.
fn apply(state: &State, op: &Op, scarce: bool) -> Option<State> {
    let stored = |value: Value, unique: Option<u64>| Some(Some(Item { value, unique }));
    let joined = |first: bool, token: u32, unique: Option<u64>| match state {
        Some(Item {
            value: Value::Tokens(tokens),
            ..
        }) => {
            let mut tokens = tokens.clone();
            tokens.insert(if first { 0 } else { tokens.len() }, token);
            stored(Value::Tokens(tokens), unique)
        }
        _ => None,
    };
    let counted = |new: u64, change: &dyn Fn(u64) -> u64| match state {
        Some(Item {
            value: Value::Number(old),
            ..
        }) if change(*old) == new => Some(fresh(Value::Number(new))),
        _ => None,
    };
    let (is_there, same) = (state.is_some(), || Some(state.clone()));
    match (&op.ask, &op.answer) {
        (_, Answer::NoMemory) => same(),
        (ask, Answer::Unknown) => likely(ask, state).and_then(|answer| {
            let answered = Op {
                answer,
                ..op.clone()
            };
            apply(state, &answered, scarce)
        }),
        (Ask::Set(value), Answer::Stored(unique)) => stored(value.clone(), *unique),
        (Ask::Add(value), Answer::Stored(unique)) if !is_there => stored(value.clone(), *unique),
        (Ask::Add(_), Answer::NotStored) if is_there => same(),
        (Ask::Replace(value), Answer::Stored(unique)) if is_there => stored(value.clone(), *unique),
        (Ask::Replace(_), Answer::NotStored) if !is_there => same(),
        (Ask::Append(_) | Ask::Prepend(_), Answer::NotStored) if !is_there || scarce => same(),
        (Ask::Append(token), Answer::Stored(unique)) => joined(false, *token, *unique),
        (Ask::Prepend(token), Answer::Stored(unique)) => joined(true, *token, *unique),
        (Ask::Cas(..), Answer::Missing) if !is_there => same(),
        (Ask::Cas(value, unique), Answer::Stored(new)) => {
            let fits = state
                .as_ref()
                .is_some_and(|item| item.unique == Some(*unique));
            if fits {
                stored(value.clone(), *new)
            } else {
                None
            }
        }
        (Ask::Cas(_, unique), Answer::Exists) => {
            let differs = state
                .as_ref()
                .is_some_and(|item| item.unique != Some(*unique));
            if differs { same() } else { None }
        }
        (Ask::Get | Ask::Touch | Ask::Delete | Ask::Incr(_) | Ask::Decr(_), Answer::Missing)
            if !is_there =>
        {
            same()
        }
        (Ask::Get, Answer::Found(value, unique)) => {
            let item = state.as_ref().filter(|item| item.value == *value)?;
            match (item.unique, unique) {
                (Some(known), Some(told)) if known != *told => None,
                (known, told) => stored(value.clone(), known.or(*told)),
            }
        }
        (Ask::Touch, Answer::Done) if is_there => same(),
        (Ask::Delete, Answer::Done) if is_there => Some(None),
        (Ask::Delete, Answer::Gone) => Some(None),
        (Ask::Incr(by), Answer::Number(new)) => counted(*new, &|old| old.wrapping_add(*by)),
        (Ask::Decr(by), Answer::Number(new)) => counted(*new, &|old| old.saturating_sub(*by)),
        _ => None,
    }
}

/// What a request that changes something is answered in this state, if it changes it.
fn likely(ask: &Ask, state: &State) -> Option<Answer> {
    let item = state.as_ref();
    let number = match item.map(|item| &item.value) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    match ask {
        Ask::Set(_) => Some(Answer::Stored(None)),
        Ask::Add(_) => item.is_none().then_some(Answer::Stored(None)),
        Ask::Replace(_) | Ask::Append(_) | Ask::Prepend(_) => item.map(|_| Answer::Stored(None)),
        Ask::Cas(_, unique) => {
            let fits = item.is_some_and(|item| item.unique == Some(*unique));
            fits.then_some(Answer::Stored(None))
        }
        Ask::Delete => item.map(|_| Answer::Done),
        Ask::Incr(by) => number.map(|old| Answer::Number(old.wrapping_add(*by))),
        Ask::Decr(by) => number.map(|old| Answer::Number(old.saturating_sub(*by))),
        Ask::Get | Ask::Touch => None,
    }
}

/// Whether there is an order of the operations of one key in which each answer is right and nothing happens before it was
/// asked for or after it was answered. The key is empty at first. With `may_vanish` the item may go at any time between
/// two of them, as an eviction has it.
///
/// # Panics
///
/// With more than [`OPS_MAX`] operations.
pub fn is_linear(ops: &[Op], may_vanish: bool) -> bool {
    assert!(ops.len() <= OPS_MAX, "{} operations", ops.len());
    let is_known = |op: &Op| op.answer != Answer::Unknown;
    let bits = |which: &dyn Fn(usize, &Op) -> bool| {
        let chosen = ops.iter().enumerate().filter(|(at, op)| which(*at, op));
        chosen.fold(0u64, |mask, (at, _)| mask | 1 << at)
    };
    let known = bits(&|_, op| is_known(op));
    // What an unanswered request cannot follow: what was asked for when its server had ended.
    let later: Vec<u64> = ops
        .iter()
        .enumerate()
        .map(|(at, op)| match op.answer {
            Answer::Unknown => bits(&|other, it| {
                (it.client == op.client && other > at) || it.called_ns > op.returned_ns
            }),
            _ => 0,
        })
        .collect();
    // What must be over before each: what had returned, and what its client had asked for, before it was called.
    let before: Vec<u64> = ops
        .iter()
        .enumerate()
        .map(|(at, op)| {
            let earlier = |(other, it): (usize, &Op)| {
                let own = it.client == op.client && other < at;
                let over = is_known(it) && (own || it.returned_ns < op.called_ns);
                if over { 1 << other } else { 0 }
            };
            ops.iter()
                .enumerate()
                .map(earlier)
                .fold(0, |mask, bit: u64| mask | bit)
        })
        .collect();
    let mut order: Vec<usize> = (0..ops.len()).collect();
    order.sort_by_key(|at| is_known(&ops[*at]));
    let mut tried = HashSet::new();
    let mut open: Vec<(u64, State)> = vec![(0, None)];
    while let Some((done, state)) = open.pop() {
        if done & known == known {
            return true;
        }
        // Those without an answer are tried last: in most stories they never happened.
        for &at in &order {
            let op = &ops[at];
            if done & (1 << at) != 0 || before[at] & !done != 0 || later[at] & done != 0 {
                continue;
            }
            let gone = (may_vanish && state.is_some()).then_some(None);
            for from in [Some(&state), gone.as_ref()].into_iter().flatten() {
                if let Some(next) = apply(from, op, may_vanish) {
                    let step = (done | 1 << at, next);
                    if tried.insert(step.clone()) {
                        open.push(step);
                    }
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(client: usize, time: (u64, u64), ask: Ask, answer: Answer) -> Op {
        let (called_ns, returned_ns) = time;
        Op {
            client,
            called_ns,
            returned_ns,
            ask,
            answer,
        }
    }

    fn text(token: u32) -> Value {
        Value::Tokens(vec![token])
    }

    const STORED: Answer = Answer::Stored(None);

    #[test]
    fn a_value_that_was_overwritten_does_not_come_back() {
        let mut ops = vec![
            op(0, (0, 1), Ask::Set(text(1)), STORED),
            op(0, (2, 3), Ask::Set(text(2)), STORED),
            op(1, (4, 5), Ask::Get, Answer::Found(text(1), None)),
        ];
        assert!(!is_linear(&ops, false) && !is_linear(&ops, true));
        // While the second store is under way it may.
        ops[1].returned_ns = 9;
        assert!(is_linear(&ops, false));
        ops[2].answer = Answer::Missing;
        assert!(!is_linear(&ops, false) && is_linear(&ops, true));
    }

    #[test]
    fn a_delete_that_was_answered_holds() {
        let ops = [
            op(0, (0, 1), Ask::Set(text(1)), STORED),
            op(1, (2, 3), Ask::Delete, Answer::Done),
            op(0, (4, 5), Ask::Get, Answer::Found(text(1), None)),
        ];
        assert!(!is_linear(&ops, true));
    }

    #[test]
    fn of_two_who_compare_with_one_unique_one_wins() {
        let cas = |client, token| op(client, (4, 9), Ask::Cas(text(token), 7), STORED);
        let mut ops = vec![
            op(0, (0, 1), Ask::Set(text(1)), STORED),
            op(0, (2, 3), Ask::Get, Answer::Found(text(1), Some(7))),
            cas(1, 2),
            cas(2, 3),
        ];
        assert!(!is_linear(&ops, false) && !is_linear(&ops, true));
        ops[3].answer = Answer::Exists;
        assert!(is_linear(&ops, false));
    }

    #[test]
    fn counters_neither_lose_nor_double() {
        let incr = |client, number| op(client, (2, 9), Ask::Incr(1), Answer::Number(number));
        let of = |second| {
            let set = op(0, (0, 1), Ask::Set(Value::Number(5)), STORED);
            [set, incr(1, 6), incr(2, second)]
        };
        assert!(is_linear(&of(7), false));
        assert!(!is_linear(&of(6), true) && !is_linear(&of(8), true));
    }

    #[test]
    fn pipelined_requests_keep_their_order() {
        let ops = [
            op(0, (0, 9), Ask::Set(text(1)), STORED),
            op(0, (0, 9), Ask::Append(2), STORED),
            op(
                0,
                (0, 9),
                Ask::Get,
                Answer::Found(Value::Tokens(vec![2, 1]), None),
            ),
        ];
        assert!(!is_linear(&ops, false));
    }

    #[test]
    fn what_was_not_answered_was_done_before_the_end_or_never() {
        let mut ops = vec![
            op(0, (0, 1), Ask::Set(text(1)), STORED),
            op(0, (2, 2), Ask::Set(text(2)), Answer::Unknown),
            op(1, (5, 6), Ask::Get, Answer::Found(text(1), None)),
            op(1, (7, 8), Ask::Get, Answer::Found(text(2), None)),
        ];
        // It takes its time: nobody knows yet that the server has ended.
        ops[1].returned_ns = 9;
        assert!(is_linear(&ops, false));
        ops.swap(2, 3);
        (ops[2].called_ns, ops[2].returned_ns) = (5, 6);
        (ops[3].called_ns, ops[3].returned_ns) = (7, 8);
        assert!(!is_linear(&ops, true), "what was done is not undone");
        ops.swap(2, 3);
        (ops[2].called_ns, ops[2].returned_ns) = (5, 6);
        (ops[3].called_ns, ops[3].returned_ns) = (7, 8);
        ops[1].returned_ns = 3;
        assert!(
            !is_linear(&ops, false),
            "the server that was asked had ended"
        );
        let ops = [
            op(0, (0, 1), Ask::Set(text(1)), STORED),
            op(0, (2, 2), Ask::Delete, Answer::Unknown),
            op(0, (5, 6), Ask::Get, Answer::Found(text(1), None)),
            op(0, (7, 8), Ask::Get, Answer::Missing),
        ];
        assert!(
            !is_linear(&ops, false),
            "the request was for the server before"
        );
    }
}
