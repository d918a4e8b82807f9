//! Percent-encoding, as in RFC 3986 section 2.1.

/// The bytes that `text` stands for. `None` if a `%` is not followed by two hexadecimal digits. With `plus`, a `+` is a
/// blank, as forms write it in a query.
pub fn decode(text: &str, plus: bool) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    Some(value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_and_refuses() {
        let vectors: [(&str, bool, Option<&[u8]>); 9] = [
            ("", false, Some(b"")),
            ("user:1", false, Some(b"user:1")),
            ("a%20b%2Fc", false, Some(b"a b/c")),
            ("%00%ff", false, Some(b"\0\xff")),
            ("a+b", false, Some(b"a+b")),
            ("a+b%2b", true, Some(b"a b+")),
            ("%", false, None),
            ("%4", false, None),
            ("%+1", true, None),
        ];
        for (text, plus, expected) in vectors {
            assert_eq!(decode(text, plus).as_deref(), expected, "{text:?}");
        }
    }
}
