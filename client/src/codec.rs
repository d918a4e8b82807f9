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
//! For all types of serde there are [`Json`], which people and other languages read (feature `json`), and [`Postcard`], which is binary
//! and a fraction of the size (feature `postcard`):
//!
#![cfg_attr(all(feature = "json", feature = "testing"), doc = "```")]
#![cfg_attr(not(all(feature = "json", feature = "testing")), doc = "```ignore")]
//! use ketch_client::{Client, ClientOptions, codec::Json, testing::TestNode};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct User { name: String, age: u8 }
//!
//! let node = TestNode::start();
//! let client = Client::new([node.node()], ClientOptions::default()).typed(Json);
//! let ann = User { name: "ann".into(), age: 40 };
//! client.set("user:1", &ann, 60)?;
//! assert_eq!(client.get("user:1")?, Some(ann));
//! assert_eq!(node.value("user:1").as_deref(), Some(&br#"{"name":"ann","age":40}"#[..]));
//! # Ok::<(), ketch_client::Error>(())
//! ```

#[cfg(any(feature = "json", feature = "postcard"))]
use serde::{Serialize, de::DeserializeOwned};

use client_core::error::{Error, Result};
use client_core::value::Item;

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

/// Every type of serde as JSON, with client flags 0, and whatever flags it comes with.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> std::result::Result<(Vec<u8>, u32), Fault> {
        Ok((serde_json::to_vec(value)?, 0))
    }

    fn decode(&self, bytes: &[u8], _flags: u32) -> std::result::Result<T, Fault> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// Every type of serde in postcard's format, with client flags 0, and whatever flags it comes with. The bytes do not tell their type, nor
/// the names of fields: who changes a type changes the keys as well.
#[cfg(feature = "postcard")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    fn encode(&self, value: &T) -> std::result::Result<(Vec<u8>, u32), Fault> {
        Ok((postcard::to_stdvec(value)?, 0))
    }

    fn decode(&self, bytes: &[u8], _flags: u32) -> std::result::Result<T, Fault> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        if !rest.is_empty() {
            return Err("bytes are left over".into());
        }
        Ok(value)
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

    #[cfg(all(feature = "json", feature = "postcard"))]
    #[test]
    fn types_of_serde() {
        let value = (7_u32, "seven".to_owned(), vec![Some(-1_i8), None]);
        let json = encode(&Json, &value).expect("it is JSON");
        assert_eq!(json, Item::from(r#"[7,"seven",[-1,null]]"#));
        assert_eq!(decode(&Json, &json), Ok(value.clone()));
        let small = encode(&Postcard, &value).expect("it has a length");
        assert!(small.value.len() < json.value.len());
        assert_eq!(decode(&Postcard, &small), Ok(value));
        // What is none is an error, however it ends.
        type Triple = (u32, String, Vec<Option<i8>>);
        for len in 0..small.value.len() {
            let cut = Item::new(small.value.slice(..len), 0);
            assert!(matches!(
                decode::<Triple>(&Postcard, &cut),
                Err(Error::Value(_))
            ));
        }
        let more = Item::new([&small.value[..], b"x"].concat(), 0);
        assert!(decode::<Triple>(&Postcard, &more).is_err());
        assert!(decode::<Triple>(&Json, &small).is_err());
    }

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
