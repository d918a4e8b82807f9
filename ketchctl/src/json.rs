//! As much JSON as is written here.

/// A string.
pub fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A number if `text` is written as JSON writes one, else a string.
pub fn value(text: &str) -> String {
    let (whole, fraction) = match text.strip_prefix('-').unwrap_or(text).split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text.strip_prefix('-').unwrap_or(text), None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if digits(whole) && !leading_zero && fraction.is_none_or(digits) {
        text.to_owned()
    } else {
        string(text)
    }
}

/// An object of members that are JSON already.
pub fn object(members: impl IntoIterator<Item = (String, String)>) -> String {
    let members = members.into_iter();
    let members: Vec<String> = members
        .map(|(name, value)| format!("{}:{value}", string(&name)))
        .collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_strings_objects() {
        for (text, json) in [
            ("0", "0"),
            ("-17", "-17"),
            ("1.25", "1.25"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.6.45", "\"1.6.45\""),
            ("007", "\"007\""),
            ("1.", "\"1.\""),
            ("", "\"\""),
            ("-", "\"-\""),
            ("yes", "\"yes\""),
            ("a\"b\\c\n", "\"a\\\"b\\\\c\\u000a\""),
        ] {
            assert_eq!(value(text), json);
        }
        let members = [("a".to_owned(), value("1")), ("b".to_owned(), object([]))];
        assert_eq!(object(members), r#"{"a":1,"b":{}}"#);
    }
}
