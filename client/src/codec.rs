//! Values with a type: a codec says how they become bytes.
//!
//! ```
//! use ketch_client::codec::{Codec, Fault};
//!
//! struct Point { x: u32, y: u32 }
//!
//! /// Points as `x,y`, with 7 in the client flags, so that nothing else is taken for one.
//! struct Points;
//!
//! impl Codec<Point> for Points {
//!     fn encode(&self, point: &Point) -> Result<(Vec<u8>, u32), Fault> {
//!         Ok((format!("{},{}", point.x, point.y).into_bytes(), 7))
//!     }
//!
//!     fn decode(&self, bytes: &[u8], flags: u32) -> Result<Point, Fault> {
//!         let text = std::str::from_utf8(bytes)?;
//!         match (flags, text.split_once(',')) {
//!             (7, Some((x, y))) => Ok(Point { x: x.parse()?, y: y.parse()? }),
//!             _ => Err("not a point".into()),
//!         }
//!     }
//! }
//!
//! let (bytes, flags) = Points.encode(&Point { x: 1, y: 2 }).unwrap();
//! assert_eq!((&bytes[..], flags), (&b"1,2"[..], 7));
//! assert!(Points.decode(b"1,2", 0).is_err());
//! ```
//!
//! With serde_json, for all types at once:
//!
//! ```
//! use ketch_client::codec::{Codec, Fault};
//! use serde::{Serialize, de::DeserializeOwned};
//!
//! struct Json;
//!
//! impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
//!     fn encode(&self, value: &T) -> Result<(Vec<u8>, u32), Fault> {
//!         Ok((serde_json::to_vec(value)?, 0))
//!     }
//!
//!     fn decode(&self, bytes: &[u8], _flags: u32) -> Result<T, Fault> {
//!         Ok(serde_json::from_slice(bytes)?)
//!     }
//! }
//!
//! let (bytes, flags) = Json.encode(&vec![1, 2]).unwrap();
//! let back: Vec<u32> = Json.decode(&bytes, flags).unwrap();
//! assert_eq!(back, [1, 2]);
//! ```

use crate::error::{Error, Result};
use crate::value::Item;

/// Why a value cannot be encoded or decoded.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How values of a type become bytes and client flags, and are had back from them.
pub trait Codec<T> {
    /// The bytes and the client flags of `value`.
    fn encode(&self, value: &T) -> std::result::Result<(Vec<u8>, u32), Fault>;
    /// The value of `bytes` and `flags`, which may be anything.
    fn decode(&self, bytes: &[u8], flags: u32) -> std::result::Result<T, Fault>;
}

/// Bytes and text as they are, with client flags 0, and whatever flags they come with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec<Vec<u8>> for Raw {
    fn encode(&self, value: &Vec<u8>) -> std::result::Result<(Vec<u8>, u32), Fault> {
        Ok((value.clone(), 0))
    }

    fn decode(&self, bytes: &[u8], _flags: u32) -> std::result::Result<Vec<u8>, Fault> {
        Ok(bytes.to_vec())
    }
}

impl Codec<String> for Raw {
    fn encode(&self, value: &String) -> std::result::Result<(Vec<u8>, u32), Fault> {
        Ok((value.clone().into_bytes(), 0))
    }

    fn decode(&self, bytes: &[u8], _flags: u32) -> std::result::Result<String, Fault> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

/// A value as an item.
pub(crate) fn encode<T>(codec: &impl Codec<T>, value: &T) -> Result<Item> {
    let (bytes, flags) = codec.encode(value).map_err(fault)?;
    Ok(Item::new(bytes, flags))
}

/// An item as a value.
pub(crate) fn decode<T>(codec: &impl Codec<T>, item: &Item) -> Result<T> {
    codec.decode(&item.value, item.flags).map_err(fault)
}

fn fault(fault: Fault) -> Error {
    Error::Value(fault.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_text() {
        let bytes = encode(&Raw, &b"\xff".to_vec());
        assert_eq!(bytes, Ok(Item::new(&b"\xff"[..], 0)));
        let bytes = bytes.expect("just seen");
        assert_eq!(decode::<Vec<u8>>(&Raw, &bytes), Ok(vec![0xff]));
        assert!(matches!(
            decode::<String>(&Raw, &bytes),
            Err(Error::Value(_))
        ));
        let text = encode(&Raw, &"text".to_owned()).expect("text is bytes");
        assert_eq!(decode::<String>(&Raw, &text), Ok("text".to_owned()));
    }
}
