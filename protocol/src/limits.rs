//! How long things may be.

/// The longest key, in bytes, after base64 decoding.
pub const KEY_LEN_MAX: usize = 250;
/// The longest line, in bytes without its `\n`, that is waited for when it is not a list of keys (`get` and its kin).
pub const LINE_LEN_MAX: usize = 2048;
/// The largest length, in bytes, that counts as the length of a store; what the server takes in is less.
pub const VALUE_LEN_MAX: u32 = i32::MAX as u32 - 2;
/// The most bytes that an item can ever have: memcached's bound on `-I`. Nobody means a longer data block, and nobody waits
/// for one.
pub const ITEM_LEN_MAX: u32 = 1 << 30;
/// The longest opaque token, in bytes, without its `O`.
pub const OPAQUE_LEN_MAX: usize = 31;
/// The most tokens of a meta command, its name, key and length counted.
pub const META_TOKENS_MAX: usize = 20;
