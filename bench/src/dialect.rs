//! The words on the wire: one command as bytes, in each dialect.

use crate::dataset::Dataset;

/// The words on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `get`, `set`.
    Text,
    /// `mg`, `ms`; several keys are quiet `mg`s with an `mn` behind them.
    Meta,
    /// Reads are quiet `getkq`s with a `noop` behind them, stores are `set`.
    Binary,
}

/// Appends one command that reads `ids`.
pub fn retrieve(dialect: Dialect, data: &Dataset, ids: &[u64], out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => {
            out.extend_from_slice(b"get");
            for &id in ids {
                out.push(b' ');
                data.key_into(id, out);
            }
            out.extend_from_slice(b"\r\n");
        }
        Dialect::Meta => {
            let flags: &[u8] = if ids.len() == 1 {
                b" k v\r\n"
            } else {
                b" k q v\r\n"
            };
            for &id in ids {
                out.extend_from_slice(b"mg ");
                data.key_into(id, out);
                out.extend_from_slice(flags);
            }
            if ids.len() > 1 {
                out.extend_from_slice(b"mn\r\n");
            }
        }
        Dialect::Binary => {
            for &id in ids {
                binary_head(GETKQ, data.key_len(), 0, 0, out);
                data.key_into(id, out);
            }
            binary_head(NOOP, 0, 0, 0, out);
        }
    }
}

/// Appends one command that stores `id`.
pub fn store(dialect: Dialect, data: &Dataset, id: u64, out: &mut Vec<u8>) {
    let len = data.value_len(id);
    match dialect {
        Dialect::Text => {
            out.extend_from_slice(b"set ");
            data.key_into(id, out);
            out.extend_from_slice(b" 0 0 ");
        }
        Dialect::Meta => {
            out.extend_from_slice(b"ms ");
            data.key_into(id, out);
            out.push(b' ');
        }
        Dialect::Binary => {
            binary_head(SET, data.key_len(), 8, len, out);
            out.extend_from_slice(&[0; 8]);
            data.key_into(id, out);
            data.value_into(id, out);
            return;
        }
    }
    decimal(len, out);
    out.extend_from_slice(b"\r\n");
    data.value_into(id, out);
    out.extend_from_slice(b"\r\n");
}

/// Opcodes of the binary protocol.
pub(crate) const SET: u8 = 0x01;
pub(crate) const NOOP: u8 = 0x0a;
pub(crate) const GETKQ: u8 = 0x0d;

/// magic, opcode, key length, extras length, data type, vbucket, body length, opaque, CAS.
fn binary_head(opcode: u8, key_len: usize, extras: usize, value: usize, out: &mut Vec<u8>) {
    let mut head = [0; 24];
    head[0] = 0x80;
    head[1] = opcode;
    head[2..4].copy_from_slice(&(key_len as u16).to_be_bytes());
    head[4] = extras as u8;
    head[8..12].copy_from_slice(&((key_len + extras + value) as u32).to_be_bytes());
    out.extend_from_slice(&head);
}

fn decimal(mut n: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for n in [0, 7, 10, 12_345, usize::MAX] {
            let mut out = Vec::new();
            decimal(n, &mut out);
            assert_eq!(out, n.to_string().as_bytes());
        }
    }
}
